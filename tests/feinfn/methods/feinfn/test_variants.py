"""Every field of the model: shapes, gradients, state dicts, sizes, safety, determinism."""

from dataclasses import fields, replace
from typing import get_args, get_type_hints

import pytest
import torch
from device import DEVICE
from hypothesis import given, settings
from hypothesis import strategies as st

from feinfn.config import PRESETS, ModelConfig
from feinfn.errors import UserError
from feinfn.methods.feinfn.fourier import clear_real_bins, polar
from feinfn.methods.feinfn.geometry import sampling_geometry
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.network import count_parameters
from feinfn.physics import Bands, Physics

TINY = ModelConfig(
    hsi_bands=5,
    feat_dim=4,
    guide_dim=4,
    spatial_blocks=1,
    spectral_blocks=1,
    mlp_widths=(8, 6),
    decoder_width=8,
    decoder_layers=2,
    omega_0=5,
    scale_0=1,
)
HINTS = get_type_hints(ModelConfig)
SHARED = {f.name for f in fields(Physics)} - {f.name for f in fields(Bands)}
OWN = [f.name for f in fields(ModelConfig) if f.name not in SHARED]
"""FeINFN's own fields; those of every learned method have tests of their own."""
CHOICES = {name: get_args(HINTS[name]) for name in OWN}
CHANGES = [
    {name: value}
    for name, values in CHOICES.items()
    if values and isinstance(values[0], str)
    for value in values
    if value != getattr(TINY, name)
]
CHANGES += [{name: not getattr(TINY, name)} for name in OWN if HINTS[name] is bool]
CHANGES += [{"frequency_kernel_px": 1}, {"mlp_widths": (8,)}, {"decoder_layers": 1}]
CHANGES += [{"upsampling": "bilinear", "phase_layout": "channel_first"}]


def inputs(config=TINY, lr=(4, 4), hr=(16, 16), dtype=torch.float32, batch=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((config.msi_bands, *hr), (config.hsi_bands, *hr), (config.hsi_bands, *lr))
    return [
        torch.rand(batch, *s, generator=generator, dtype=torch.float64).to(DEVICE, dtype)
        for s in shapes
    ]


def build(config=TINY, dtype=torch.float32, **parts):
    torch.manual_seed(0)
    return FeINFN(config, **parts).to(DEVICE, dtype)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_every_choice_runs_trains_and_differs(change):
    config = replace(TINY, **change)
    model, data = build(config), inputs()
    out = model(*data)
    assert out.shape == (1, 5, 16, 16)
    out.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, f"{name} is not used"
        assert torch.isfinite(parameter.grad).all(), name
    again = FeINFN(config).to(DEVICE)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again(*data), out)
    # How activations are trained cannot show before training.
    if not {"activation_trainable", "activation_shared"} & set(change):
        assert not torch.equal(build()(*data), out)


def test_fixed_and_shared_activations_change_the_count():
    free = count_parameters(build())
    assert count_parameters(build(replace(TINY, activation_trainable=False))) == free - 4
    assert count_parameters(build(replace(TINY, activation_shared=True))) == free - 2


@pytest.mark.parametrize("layout", ["reviewed", "channel_first"])
def test_training_follows_inference_at_the_same_size(layout):
    config, data = replace(TINY, phase_layout=layout, positional="none"), inputs(hr=(12, 20))
    with torch.inference_mode():
        out = build(config)(*data)
    model = build(config)
    trained = model(*data)
    trained.sum().backward()
    assert torch.allclose(trained, out, atol=1e-6)


def test_float64_stays_float64_under_autocast():
    model, data = build(dtype=torch.float64), inputs(dtype=torch.float64)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        assert torch.equal(model(*data), build(dtype=torch.float64)(*data))


def test_both_branches_off_is_refused():
    with pytest.raises(UserError, match=r"model.spatial_branch: found False, expected true if"):
        replace(TINY, fourier_branch=False, spatial_branch=False)


def test_pixel_shuffle_of_another_ratio_is_named():
    model = build(replace(TINY, upsampling="pixel_shuffle", shuffle_ratio=2))
    with pytest.raises(UserError, match=r"model.shuffle_ratio: found 2, which makes 8x8"):
        model(*inputs())


@pytest.mark.parametrize("preset", PRESETS)
@settings(max_examples=12, deadline=None)
@given(
    lr=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    hr=st.tuples(st.integers(1, 23), st.integers(1, 23)),
)
def test_any_size_runs_with_finite_gradients(preset, lr, hr):
    names = [f.name for f in fields(ModelConfig) if isinstance(getattr(TINY, f.name), str)]
    chosen = {n: getattr(PRESETS[preset], n) for n in names}
    model = build(replace(TINY, **chosen))
    out = model(*inputs(lr=lr, hr=hr))
    assert out.shape[-2:] == hr
    out.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("ratio", [1, 2, 3, 8, 32])
@pytest.mark.parametrize("rule", ["zero", "clamped"])
def test_inside_neighbours_are_the_two_around_each_pixel(ratio, rule):
    lr, hr = 5, 5 * ratio
    geometry = sampling_geometry((lr, lr), (hr, hr), rule, torch.float64, torch.device("cpu"))
    offsets = geometry.offset_NV2.view(hr, hr, 4, 2).movedim(2, 0)
    inner = offsets[:, ratio:-ratio, ratio:-ratio]
    # Neighbouring LR pixels are 2 apart: every pixel lies between its neighbours along each axis,
    # by at most one LR pixel from either.
    assert inner.abs().max() <= 2 + 1e-12
    assert (inner[0] >= -1e-12).all()
    assert (inner[3] <= 1e-12).all()


def test_clamped_border_repeats_the_border_pixel():
    geometry = sampling_geometry((3, 3), (12, 12), "clamped", torch.float64, torch.device("cpu"))
    rows = geometry.picks_NV.view(12, 12, 4) // (3 + 2)
    assert rows[:2, 0, 0].tolist() == [1, 1]
    assert rows[-2:, 0, 3].tolist() == [3, 3]
    assert geometry.offset_NV2.abs().max() <= 2


@pytest.mark.parametrize("size", [(8, 8), (7, 6), (12, 10), (1, 1)])
def test_phase_of_self_conjugate_bins_ignores_the_sign_of_zero(size):
    image = torch.rand(1, 2, *size, dtype=torch.float64).to(DEVICE) - 0.7
    half = torch.fft.rfft2(image)
    noise = torch.complex(torch.zeros(()), torch.tensor(-1e-18)).to(half.dtype)
    noisy = half + noise
    for x in (half, noisy):
        clear_real_bins(x, size[1])
    a, b = half.angle(), noisy.angle()
    assert (a - b).abs().max() < 1e-9
    expected = (half.real[..., 0, 0] < 0) * torch.pi
    assert (a[..., 0, 0] - expected).abs().max() < 1e-6


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (63, 65)])
def test_gradients_of_amplitude_and_phase_equal_those_of_the_whole_spectrum(size):
    image, *weights = torch.rand(3, 1, 2, *size, dtype=torch.float64).to(DEVICE)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        x = image.to(dtype).requires_grad_()
        if dtype == torch.float32:
            parts = [part.movedim(-1, 1) for part in polar(x, shifted=False, channels=None)]
        else:
            spectrum = torch.fft.fft2(x)
            parts = [spectrum.abs(), spectrum.angle()]
        weighted = sum((part * w).sum() for part, w in zip(parts, weights, strict=True))
        gradients += torch.autograd.grad(weighted, x)
    ours, whole = gradients
    assert (ours - whole).abs().max() < 1e-4 * whole.abs().max()


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("kind", ["zero", "constant", "saturated", "one pixel"])
def test_gradients_are_finite_for_degenerate_images(preset, kind):
    names = [f.name for f in fields(ModelConfig) if isinstance(getattr(TINY, f.name), str)]
    model = build(replace(TINY, **{n: getattr(PRESETS[preset], n) for n in names}))
    data = [torch.zeros_like(x) for x in inputs()]
    for x in data:
        if kind == "one pixel":
            x[..., 0, 0] = 1
        else:
            x.fill_({"zero": 0.0, "constant": 0.3, "saturated": 1.0}[kind])
        x.requires_grad_()
    model(*data).square().sum().backward()
    tensors = [*model.parameters(), *data]
    assert all(t.grad is not None and torch.isfinite(t.grad).all() for t in tensors)


@pytest.mark.parametrize("size", [(16, 16), (20, 12)])
def test_float32_and_float64_agree_on_ordinary_images(size):
    lr = (size[0] // 4, size[1] // 4)
    single = build()(*inputs(lr=lr, hr=size))
    double = build(dtype=torch.float64)(*inputs(lr=lr, hr=size, dtype=torch.float64))
    assert (single - double).abs().max() < 1e-5


def test_bfloat16_autocast_keeps_the_fourier_branch_in_float32():
    model, data, seen = build(), inputs(), {}
    model.fourier_fusion.register_forward_hook(lambda m, i, out: seen.update(dtype=out.dtype))
    exact = model(*data)
    with torch.autocast(DEVICE.type, dtype=torch.bfloat16):
        out = model(*data)
    assert seen["dtype"] == torch.float32
    # bfloat16 has 8 bits of significand, so the residual of a few layers is off by about 2^-6.
    assert (out.float() - exact).abs().max() < 2**-6 * (exact - data[1]).abs().max() + 2**-8


def test_same_seed_is_bit_equal_and_threads_change_little():
    data = inputs(lr=(8, 8), hr=(32, 32), batch=2)
    outputs = {}
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            outputs[count] = build()(*data)
            assert torch.equal(outputs[count], build()(*data))
    finally:
        torch.set_num_threads(threads)
    assert (outputs[1] - outputs[2]).abs().max() < 1e-6
