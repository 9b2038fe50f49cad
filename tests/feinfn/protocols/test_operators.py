"""Degradation operators: adjoints, gradients, scipy's results, batches, noise and bits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from device import DEVICE
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from feinfn.errors import UserError
from feinfn.protocols.operators import (
    PAD_MODES,
    Blur,
    Chain,
    Decimate,
    Noise,
    Operator,
    Quantise,
    SpectralResponse,
)

OPERATORS: dict[str, Operator] = {
    "blur": Blur.gaussian(4, 1.5, "reflect"),
    "decimate": Decimate(4, 1, 1),
    "response": SpectralResponse(torch.tensor([[0.2, 0.8, 0.0], [0.0, 0.5, 0.5]])),
    "noise": Noise(30.0),
    "quantise": Quantise(12),
    "chain": Chain((Blur.box(3, "circular"), Decimate(2, 1, 0), Noise(40.0), Quantise(8))),
}
"""An example of each operator by name, for images of three bands."""
SCIPY_MODES = {
    "zero": "constant",
    "reflect": "mirror",
    "replicate": "nearest",
    "circular": "wrap",
}
LINEAR = [name for name in OPERATORS if name not in ("noise", "quantise", "chain")]
SPATIAL = Chain((Blur.gaussian(4, 1.1, "reflect"), Decimate(3, 2, 0)))


def image(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(DEVICE)


def check_adjoint(operator: Operator, size: tuple[int, int], bands: int = 3) -> None:
    x = image(2, bands, *size)
    ax = operator(x)
    assert ax.shape[-2:] == operator.out_size(size)
    y = image(*ax.shape, seed=1)
    back = operator.adjoint(y, size)
    assert back.shape == x.shape
    torch.testing.assert_close((ax * y).sum(), (x * back).sum(), rtol=1e-12, atol=1e-12)


def test_every_operator_has_an_example():
    assert {type(one) for one in OPERATORS.values()} == set(Operator.__subclasses__())


@pytest.mark.parametrize("name", LINEAR)
def test_adjoint_of_every_registered_operator(name):
    check_adjoint(OPERATORS[name], (9, 14))


@given(
    rows=st.integers(1, 9),
    cols=st.integers(1, 9),
    separable=st.booleans(),
    border=st.sampled_from(sorted(PAD_MODES)),
    ratio=st.sampled_from([1, 2, 3, 4, 5, 8]),
    phases=st.tuples(st.integers(0, 7), st.integers(0, 7)),
    size=st.tuples(st.integers(8, 21), st.integers(8, 21)),
)
@settings(max_examples=300, deadline=None)
def test_adjoint_law(rows, cols, separable, border, ratio, phases, size):
    kernel = image(rows, seed=2) if separable else image(rows, cols, seed=2)
    row, col = (p % ratio for p in phases)
    response = SpectralResponse(image(2, 3))
    check_adjoint(Chain((Blur(kernel, border), Decimate(ratio, row, col), response)), size)


@pytest.mark.parametrize("border", sorted(PAD_MODES))
@pytest.mark.parametrize("shape", [(3,), (4,), (1,), (5, 2), (4, 7)])
@pytest.mark.parametrize("limit", [0, 512])
def test_blur_is_scipys_convolution(border, shape, limit, monkeypatch):
    monkeypatch.setattr("feinfn.protocols.filters.MATMUL_SIDE_FLOAT64", limit)
    kernel, x = image(*shape, seed=3), image(1, 2, 11, 16)
    full = (torch.outer(kernel, kernel) if kernel.ndim == 1 else kernel).cpu().numpy()
    bands = x[0].cpu().numpy()
    expected = [ndimage.convolve(band, full, mode=SCIPY_MODES[border]) for band in bands]
    np.testing.assert_allclose(Blur(kernel, border)(x)[0].cpu(), expected, atol=1e-12)


@pytest.mark.parametrize("size_px", [3, 4])
def test_gaussian_and_box_sum_to_one_and_decline(size_px):
    impulse = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    impulse[..., 4, 4] = 1
    for blur in (Blur.gaussian(size_px, 0.8), Blur.box(size_px)):
        psf = blur(impulse)[0, 0]
        assert psf.sum().item() == pytest.approx(1)
        assert (psf > 0).sum() == size_px**2
    values = np.exp(-((np.arange(size_px) - (size_px - 1) / 2) ** 2) / (2 * 0.8**2))
    np.testing.assert_allclose(Blur.gaussian(size_px, 0.8).kernel, values / values.sum())


def test_even_psf_sampled_before_its_centre_covers_one_cell():
    x = image(1, 1, 8, 12)
    means = Chain((Blur.box(4), Decimate(4, 1, 1)))(x)
    torch.testing.assert_close(means, torch.nn.functional.avg_pool2d(x, 4))


@pytest.mark.parametrize("operator", [OPERATORS["response"], SPATIAL, OPERATORS["blur"]])
def test_gradients(operator):
    x = image(1, 3, 6, 7).requires_grad_()
    assert torch.autograd.gradcheck(operator, x)
    y = operator(x).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: operator.adjoint(y, (6, 7)), y)


@pytest.mark.parametrize("name", OPERATORS)
def test_batch_is_its_images(name):
    operator, x = OPERATORS[name], image(3, 3, 12, 10)
    one_by_one = [
        (replace(operator, seed=b) if isinstance(operator, Noise) else operator)(x[b : b + 1])
        for b in range(3)
    ]
    if name == "chain":  # it holds noise of seed 0, 1, 2
        one_by_one = [
            Chain((*operator.operators[:2], Noise(40.0, seed=b), operator.operators[3]))(
                x[b : b + 1]
            )
            for b in range(3)
        ]
    torch.testing.assert_close(operator(x), torch.cat(one_by_one))


@pytest.mark.parametrize("device", ["cpu", *["cuda"] * torch.cuda.is_available()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", OPERATORS)
def test_type_and_device_are_kept(name, dtype, device):
    operator, x = OPERATORS[name], image(1, 3, 12, 10).to(device, dtype)
    y = operator(x)
    back = operator.adjoint(y, (12, 10))
    assert y.dtype == back.dtype == dtype
    assert y.device == back.device == x.device
    assert y.is_contiguous()
    torch.testing.assert_close(y.double(), operator(x.double()), atol=0.02, rtol=0.02)


def test_noise_has_the_stated_snr_per_band_and_image():
    x = image(2, 3, 200, 200) * torch.tensor([1.0, 0.1, 3.0]).view(3, 1, 1).to(DEVICE)
    snr = (20.0, 30.0, 10.0)
    noise = Noise(snr, seed=5)(x) - x
    found = 10 * torch.log10(x.square().mean((2, 3)) / noise.square().mean((2, 3)))
    torch.testing.assert_close(found.cpu(), torch.tensor([snr, snr]).double(), atol=0.1, rtol=0)
    assert noise.mean((2, 3)).abs().max() < 0.01
    flat = noise.flatten(2)[:, 0]
    assert torch.corrcoef(flat)[0, 1].abs() < 0.03


def test_noise_follows_its_seed_and_passes_gradients():
    x = image(1, 3, 8, 8).requires_grad_()
    torch.testing.assert_close(Noise(20.0, 1)(x), Noise(20.0, (1,))(x), rtol=0, atol=0)
    assert not torch.equal(Noise(20.0, 1)(x), Noise(20.0, 2)(x))
    (grad,) = torch.autograd.grad(Noise(20.0)(x).sum(), x)
    assert torch.equal(grad, torch.ones_like(x))
    black = torch.zeros(1, 3, 8, 8)
    assert torch.equal(Noise(20.0)(black), black)


def test_quantise_rounds_saturates_and_passes_gradients():
    x = torch.tensor([-0.5, 0.0, 0.16, 0.17, 0.5, 0.84, 1.0, 7.0]).view(1, 1, 2, 4)
    thirds = torch.tensor([0, 0, 0, 1, 2, 3, 3, 3]).view(1, 1, 2, 4) / 3
    assert torch.equal(Quantise(2)(x), thirds)
    x.requires_grad_()
    (grad,) = torch.autograd.grad((Quantise(2)(x) * x.detach()).sum(), x)
    assert torch.equal(grad, x.detach())


def test_adjoint_works_without_gradients():
    with torch.inference_mode():
        check_adjoint(SPATIAL, (9, 12))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blur.gaussian(3, -1.0), r"sigma_px: found -1.0, expected a number > 0"),
        (lambda: Blur.gaussian(0, 1.0), "size_px: found 0"),
        (lambda: Blur.box(0), "size_px: found 0"),
        (lambda: Blur(torch.ones(2, 2, 2)), r"kernel: found \(2, 2, 2\)"),
        (lambda: Blur(torch.tensor([1.0, torch.nan])), "finite numbers"),
        (lambda: Blur.box(3, "mirror"), "border: found 'mirror', expected one of"),
        (lambda: Decimate(4, 0, 4), r"col: found 4, expected from 0 to 3"),
        (lambda: Decimate(0), "ratio: found 0"),
        (lambda: Decimate(8, 6)(image(1, 1, 5, 9)), "found 5x9, expected more than 6 rows"),
        (lambda: SpectralResponse(torch.ones(3)), r"matrix: found \(3,\)"),
        (lambda: OPERATORS["response"](image(1, 4, 2, 2)), "found 4 bands, expected 3"),
        (lambda: Noise(float("inf")), "snr_db: found inf, expected a finite number"),
        (
            lambda: Noise((20.0, 30.0))(image(1, 3, 4, 4)),
            "snr_db: found 2, expected 1 or 3 numbers",
        ),
        (lambda: Noise(20.0, (1,))(image(2, 3, 4, 4)), "seed: found 1, expected 2 seeds"),
        (lambda: Quantise(0), "bits: found 0, expected an integer >= 1 and <= 16"),
        (
            lambda: Blur.box(9, "reflect")(image(1, 1, 4, 9)),
            "PSF of 9x9 on an image of 4x9, expected an image of at least 5x5",
        ),
        (lambda: Blur.box(9, "circular")(image(1, 1, 3, 9)), "at least 4x4"),
    ],
)
def test_bad_values_are_named(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(("border", "smallest"), [("reflect", 5), ("circular", 4)])
def test_smallest_image_that_a_border_continues(border, smallest):
    check_adjoint(Blur.gaussian(9, 2.0, border), (smallest, smallest))
