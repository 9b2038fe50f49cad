"""Consistency: dense solutions of small images, projector laws, gradients, noise and refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from feinfn.errors import UserError
from feinfn.protocols import consistency
from feinfn.protocols.consistency import project
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.operators import SpectralResponse
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.simulate import Inputs, Pair, simulate, spatial

BANDS = 5
NM = np.linspace(420, 700, BANDS)
WHAT = ("msi", "hsi", "both")
APART, OVERLAPPING = PROTOCOLS["cave_x4"], PROTOCOLS["lso_x4"]
PROTOCOL_CASES = {
    "apart": APART,
    "overlapping": OVERLAPPING,
    "even_circular": PROTOCOLS["dhif_x4"],
    "even_overlapping": PROTOCOLS["yokoya_x4"],
    "zero": replace(OVERLAPPING, psf_border="zero"),
    "replicate": replace(OVERLAPPING, psf_border="replicate"),
    "box": replace(APART, psf="box", psf_px=5, psf_sigma_px=None),
    "delta": replace(APART, psf="delta", psf_px=1, psf_sigma_px=None),
}
NOISY = {
    "both": {"hsi_snr_db": 25.0, "msi_snr_db": 30.0},
    "hsi": {"hsi_snr_db": 25.0},
    "msi": {"msi_snr_db": 30.0},
    "bits": {"lr_bits": 6, "msi_bits": 8},
}


def image(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def made(protocol: Protocol, size: tuple[int, int] = (16, 20)) -> tuple[Pair, Tensor]:
    """Return the inputs of two scenes and other images of their size."""
    pair = simulate(image(2, BANDS, *size), NM, protocol)
    return pair, image(2, BANDS, *size, seed=1)


def operators(pair: Inputs, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
    """Return D [hw, HW] and R [M, S] as dense matrices."""
    size = pair.msi_BMHW.shape[-2:]
    pixels = size[0] * size[1]
    eye = torch.eye(pixels, dtype=torch.float64).view(pixels, 1, *size)
    degraded = spatial(protocol)(eye).flatten(1).T
    return degraded.numpy(), protocol.response(BANDS, NM)


def dense(x: Tensor, pair: Inputs, protocol: Protocol, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the dense matrix A and the measurements y [N, ...] that shall be met, A x = y."""
    down, response = operators(pair, protocol)
    rows, measured = [], []
    if what != "hsi":
        rows.append(np.kron(response, np.eye(down.shape[1])))
        measured.append(pair.msi_BMHW.flatten(1))
    if what != "msi":
        rows.append(np.kron(np.eye(BANDS), down))
        measured.append(pair.lr_hsi_BShw.flatten(1))
    return np.concatenate(rows), torch.cat(measured, 1).numpy()


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("case", PROTOCOL_CASES)
def test_equals_the_dense_projection(case, what):
    protocol = PROTOCOL_CASES[case]
    pair, x = made(protocol, (12, 16))
    matrix, measured = dense(x, pair, protocol, what)
    flat = x.flatten(1).numpy()
    expected = flat + (measured - flat @ matrix.T) @ np.linalg.pinv(matrix, rcond=1e-9).T
    found = project(x, pair, protocol, what, NM)
    assert np.abs(found.flatten(1).numpy() - expected).max() < 1e-9


@pytest.mark.parametrize("what", WHAT)
@pytest.mark.parametrize("noise", NOISY)
@pytest.mark.parametrize("name", ["cave_x4", "lso_x4"])
def test_equals_the_dense_estimate_under_noise(name, noise, what):
    protocol = replace(PROTOCOLS[name], **NOISY[noise])
    pair, x = made(protocol, (12, 16))
    base = image(2, BANDS, 12, 16, seed=2)
    found = project(x, pair, protocol, what, NM, base_NSHW=base)
    matrix, measured = dense(x, pair, protocol, what)
    down, _ = operators(pair, protocol)
    for n in range(2):
        variances = [
            np.repeat(_variance(y[n], snr_db, bits), y[n, 0].numel())
            for y, snr_db, bits, wanted in (
                (pair.msi_BMHW, protocol.msi_snr_db, protocol.msi_bits, what != "hsi"),
                (pair.lr_hsi_BShw, protocol.hsi_snr_db, protocol.lr_bits, what != "msi"),
            )
            if wanted
        ]
        noise_var = np.concatenate(variances)
        prior = np.ones(BANDS)
        if noise_var.any():
            rest = pair.lr_hsi_BShw[n] - spatial(protocol)(base[n : n + 1])[0]
            power = rest.square().mean(dim=(-2, -1)).numpy()
            noise_S = _variance(pair.lr_hsi_BShw[n], protocol.hsi_snr_db, protocol.lr_bits)
            prior = np.maximum(power - noise_S, consistency.LEAST_PRIOR * power)
            prior /= np.square(down).sum(axis=1).mean()
        cross = np.repeat(prior, 12 * 16)[:, None] * matrix.T
        flat = x[n].flatten().numpy()
        # Exact measurements repeat each other, hence the pseudoinverse.
        inverse = np.linalg.pinv(matrix @ cross + np.diag(noise_var), rcond=1e-11, hermitian=True)
        expected = flat + cross @ (inverse @ (measured[n] - matrix @ flat))
        assert np.abs(found[n].flatten().numpy() - expected).max() < 1e-8


def _variance(y_Chw: Tensor, snr_db: float | None, bits: int | None) -> np.ndarray:
    power = y_Chw.square().mean(dim=(-2, -1)).numpy()
    variance = 0 * power if snr_db is None else power / (1 + 10 ** (snr_db / 10))
    return variance + (0 if bits is None else (1 / (2**bits - 1)) ** 2 / 12)


@pytest.mark.parametrize("protocol", [APART, OVERLAPPING], ids=["apart", "overlapping"])
@pytest.mark.parametrize("what", WHAT)
def test_meets_what_it_shall_and_is_idempotent(what, protocol):
    pair, x = made(protocol)
    found = project(x, pair, protocol, what, NM)
    if what != "hsi":
        seen = SpectralResponse(torch.from_numpy(protocol.response(BANDS, NM)))(found)
        torch.testing.assert_close(seen, pair.msi_BMHW, rtol=0, atol=1e-12)
    if what != "msi":
        degraded = spatial(protocol)(found)
        torch.testing.assert_close(degraded, pair.lr_hsi_BShw, rtol=0, atol=1e-12)
    again = project(found, pair, protocol, what, NM)
    torch.testing.assert_close(again, found, rtol=0, atol=1e-12)
    # The reference meets all measurements, so it stays.
    reference = pair.reference_BSHW
    kept = project(reference, pair, protocol, what, NM)
    torch.testing.assert_close(kept, reference, rtol=0, atol=1e-12)


def linear_part(x: Tensor, pair: Pair, protocol: Protocol, what: str) -> Tensor:
    """Return the projection without its constant; noise is that of the measurements."""
    base = image(*x.shape, seed=7)
    one, zero = (project(y, pair, protocol, what, NM, base_NSHW=base) for y in (x, 0 * x))
    return one - zero


@pytest.mark.parametrize("protocol", [APART, OVERLAPPING], ids=["apart", "overlapping"])
@pytest.mark.parametrize("what", WHAT)
def test_is_its_own_adjoint(what, protocol):
    pair, x = made(protocol)
    y = image(*x.shape, seed=2)
    left = (linear_part(x, pair, protocol, what) * y).sum()
    right = (x * linear_part(y, pair, protocol, what)).sum()
    torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("noise", [{}, NOISY["both"]], ids=["exact", "noisy"])
@pytest.mark.parametrize("protocol", [APART, OVERLAPPING], ids=["apart", "overlapping"])
@pytest.mark.parametrize("what", WHAT)
def test_what_no_sensor_sees_is_kept(what, protocol, noise):
    pair, x = made(protocol)
    unseen = linear_part(x, pair, protocol, what)
    noisy = replace(protocol, **noise)
    kept = linear_part(unseen, simulate(pair.reference_BSHW, NM, noisy), noisy, what)
    torch.testing.assert_close(kept, unseen, rtol=0, atol=1e-11)


@pytest.mark.parametrize("noise", [{}, NOISY["both"]], ids=["exact", "noisy"])
@pytest.mark.parametrize("what", WHAT)
def test_gradients(what, noise):
    protocol = replace(OVERLAPPING, **noise)
    pair, x = made(protocol, (8, 8))
    base = image(*x.shape, seed=7)
    x.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: project(x, pair, protocol, what, NM, base_NSHW=base), (x,), fast_mode=True
    )


@pytest.mark.parametrize("protocol", [APART, OVERLAPPING], ids=["apart", "overlapping"])
@pytest.mark.parametrize("what", WHAT)
def test_windows_of_a_larger_image_count_lr_pixels_inside_alone(what, protocol):
    whole, _ = made(protocol, (64, 64))
    window = (..., slice(16, 48), slice(16, 48))
    lr_window = (..., slice(4, 12), slice(4, 12))
    reference = whole.reference_BSHW[window]
    cut = Inputs(whole.msi_BMHW[window], whole.lms_BSHW[window], whole.lr_hsi_BShw[lr_window])
    kept = project(reference, cut, protocol, what, NM, cut=True)
    torch.testing.assert_close(kept, reference, rtol=0, atol=1e-12)
    if what != "msi":
        found = project(0 * reference, cut, protocol, what, NM, cut=True)
        met = (spatial(protocol)(found) - cut.lr_hsi_BShw).abs().amax(dim=(0, 1)) < 1e-12
        assert met[2:-2, 2:-2].all()


def test_more_noise_moves_less():
    moves = []
    for snr_db in (60.0, 40.0, 20.0, 0.0):
        protocol = replace(APART, hsi_snr_db=snr_db, msi_snr_db=snr_db)
        pair, _ = made(protocol)
        x = 0.9 * pair.reference_BSHW
        moved = project(x, pair, protocol, "both", NM) - x
        # Along the measurements, relative to what would meet them.
        rest = pair.lr_hsi_BShw - spatial(protocol)(x)
        moves.append((spatial(protocol)(moved).norm() / rest.norm()).item())
    assert moves == sorted(moves, reverse=True)
    assert moves[0] > 0.95


def test_images_of_a_batch_do_not_mix():
    protocol = replace(APART, **NOISY["both"])
    pair, x = made(protocol)
    pair.msi_BMHW[1] *= 0.1
    together = project(x, pair, protocol, "both", NM)
    for n in range(2):
        alone = Inputs(pair.msi_BMHW[[n]], pair.lms_BSHW[[n]], pair.lr_hsi_BShw[[n]])
        torch.testing.assert_close(project(x[[n]], alone, protocol, "both", NM)[0], together[n])


@pytest.mark.parametrize("noise", [{}, NOISY["both"]], ids=["exact", "noisy"])
def test_float32_is_as_good_and_autocast_does_not_reach_in(noise):
    protocol = replace(OVERLAPPING, **noise)
    pair, x = made(protocol)
    single = Inputs(pair.msi_BMHW.float(), pair.lms_BSHW.float(), pair.lr_hsi_BShw.float())
    expected = project(x, pair, protocol, "both", NM)
    with torch.autocast("cpu", torch.bfloat16):
        found = project(x.float(), single, protocol, "both", NM)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
    assert project(x.bfloat16(), single, protocol, "both", NM).dtype == torch.float32


def test_unknown_responses_are_refused():
    pair, x = made(APART)
    measured = replace(APART, srf="measured")
    with pytest.raises(UserError, match="consistency: found 'both' for protocol cave_x4, whose"):
        project(x, pair, measured, "both", NM)
    with pytest.raises(UserError, match=r"found 'msi' for images without .* ask for 'hsi'"):
        project(x, pair, APART, "msi")
    assert project(x, pair, measured, "hsi").shape == x.shape
    with pytest.raises(UserError, match=r"found 'all', .*expected one of msi, hsi, both"):
        project(x, pair, APART, "all", NM)


def test_windows_smaller_than_the_psf_are_refused():
    pair, x = made(OVERLAPPING, (8, 8))
    with pytest.raises(UserError, match="consistency: found '8 px', expected an image of at least"):
        project(x, pair, OVERLAPPING, "hsi", cut=True)


def test_black_images_stay_finite():
    protocol = replace(APART, **NOISY["both"])
    pair = simulate(torch.zeros(1, BANDS, 16, 20), NM, protocol)
    found = project(pair.reference_BSHW, pair, protocol, "both", NM)
    assert found.abs().max() == 0
