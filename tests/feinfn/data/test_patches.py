"""Training patches equal the whole simulated scene they come from, wherever they lie."""

from collections.abc import Iterator
from dataclasses import fields, replace
from functools import partial

import numpy as np
import pytest
import torch

from feinfn.config import DataConfig, ModelConfig, TrainConfig
from feinfn.data.pairs import ScenePairs
from feinfn.data.patches import Patches, Window
from feinfn.data.scene import Scene, make_scene
from feinfn.data.source import load_scene, resolve_data
from feinfn.errors import UserError
from feinfn.methods.sensor import Sensor
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.simulate import Pair, simulate
from feinfn.region import TURNS, filled, turned, turned_corner
from feinfn.training.losses import training_loss

CAVE, CPU = PROTOCOLS["cave_x4"], torch.device("cpu")
CONFIG = TrainConfig(patch_px=32, stride_px=16)
NM = np.linspace(410, 690, 8)


def scene(height: int = 64, width: int = 96, seed: int = 0, **changes: object) -> Scene:
    raw = np.random.default_rng(seed).integers(0, 65536, (8, height, width)).astype(np.uint16)
    return make_scene(f"s{seed}", raw, NM, "memory", full_scale=65535, **changes)


def whole(one: Scene, protocol: Protocol, turn: int = 0) -> Pair:
    cube = torch.from_numpy(np.ascontiguousarray(turned(one.cube(), turn)))[None]
    return simulate(cube, one.wavelengths_nm, protocol)


def window_of(pair: Pair, top: int, left: int, size: int) -> Iterator[torch.Tensor]:
    for field in fields(pair):
        x = getattr(pair, field.name)
        shrink = pair.reference_BSHW.shape[-1] // x.shape[-1]
        t, u, n = top // shrink, left // shrink, size // shrink
        yield x[..., t : t + n, u : u + n]


def assert_equal_windows(pair: Pair, expected: Iterator[torch.Tensor]) -> None:
    for field, want in zip(fields(pair), expected, strict=True):
        # Same operations on other sizes: float32 rounding only.
        torch.testing.assert_close(getattr(pair, field.name), want, rtol=0, atol=2e-6)


BY_WAVELENGTH = [
    p
    for p in PROTOCOLS.values()
    if p.name.startswith(("cave", "dhif", "cnnfus", "lso", "yokoya")) and p.ratio <= 8
]


@pytest.mark.parametrize("protocol", BY_WAVELENGTH, ids=lambda p: p.name)
def test_every_patch_of_a_grid_equals_the_whole_simulated_scene(protocol):
    one = scene(128, 160)
    config = replace(CONFIG, stride_px=24)
    patches = Patches([one], protocol, config, CPU)
    pair = whole(one, protocol)
    inside = {(w.top, w.left) for w in patches.grid}
    if protocol.psf_border != "circular":
        assert {(0, 0), (96, 120)} <= inside
    for window in patches.grid:
        expected = window_of(pair, window.top, window.left, 32)
        assert_equal_windows(patches.batch([window]), expected)


@pytest.mark.parametrize("turn", range(TURNS))
def test_turned_patches_equal_the_turned_scene(turn):
    one = scene()
    pair = whole(one, CAVE, turn)
    patches = Patches([one], CAVE, CONFIG, CPU)
    for top, left in [(0, 0), (32, 64), (16, 40)]:
        t, u = top, left
        if turn & 1:
            u = 96 - 32 - u
        if turn & 2:
            t = 64 - 32 - t
        if turn & 4:
            t, u = u, t
        batch = patches.batch([Window(0, top, left, turn)])
        assert_equal_windows(batch, window_of(pair, t, u, 32))


def test_random_patches_are_redrawn_repeatable_and_on_the_ratio():
    config = replace(CONFIG, sampling="random", augment=True)
    patches = Patches([scene(), scene(seed=1)], CAVE, config, CPU)
    first, again, later = (patches.windows(3, e) for e in (0, 0, 1))
    assert first == again != later
    assert len(first) == len(patches)
    assert {w.scene for w in first} == {0, 1}
    assert all(w.top % 4 == w.left % 4 == 0 for w in first)
    assert max(w.top for w in first + later) == 32
    assert len({w.turn for w in first + later}) > 4


def test_scenes_of_different_and_small_sizes_share_a_batch():
    small, large = scene(32, 32), scene(96, 64, seed=1)
    patches = Patches([small, large], CAVE, CONFIG, CPU)
    batch = patches.batch([Window(0, 0, 0), Window(1, 64, 32)])
    assert batch.msi_BMHW.shape == (2, 3, 32, 32)
    for i, (one, top, left) in enumerate([(small, 0, 0), (large, 64, 32)]):
        part = Pair(*(getattr(batch, f.name)[i : i + 1] for f in fields(batch)))
        assert_equal_windows(part, window_of(whole(one, CAVE), top, left, 32))


def test_patches_alone_are_degraded_by_themselves():
    one = scene()
    patches = Patches([one], CAVE, replace(CONFIG, stride_px=17), CPU, alone=True)
    batch = patches.batch([Window(0, 17, 34)])
    cut = replace(one, raw_SHW=one.raw_SHW[:, 17:49, 34:66])
    assert_equal_windows(batch, window_of(whole(cut, CAVE), 0, 0, 32))
    inner = patches.batch([Window(0, 16, 32)])
    # The mirrored border shows, which is why the rule is part of a run's identity.
    whole_lms = next(iter(list(window_of(whole(one, CAVE), 16, 32, 32))[1:2]))
    assert (inner.lms_BSHW - whole_lms).abs().max() > 1e-3


def test_measured_msi_is_cut_along():
    msi = np.random.default_rng(5).random((4, 64, 96)).astype(np.float32)
    one = replace(scene(), msi_MHW=msi)
    patches = Patches([one], replace(CAVE, srf="measured", msi_order=tuple("ABCD")), CONFIG, CPU)
    batch = patches.batch([Window(0, 16, 32)])
    expected = torch.from_numpy(one.msi_MHW)[None, :, 16:48, 32:64]
    assert torch.equal(batch.msi_BMHW, expected)


def test_what_does_not_fit_is_named():
    with pytest.raises(UserError, match=r"train\.patch_px: found 30, expected a multiple of 4"):
        Patches([scene()], CAVE, replace(CONFIG, patch_px=30), CPU)
    with pytest.raises(UserError, match="at most the size"):
        Patches([scene()], CAVE, replace(CONFIG, patch_px=128), CPU)
    other = replace(scene(seed=1), wavelengths_nm=NM + 1)
    with pytest.raises(UserError, match="other band centres"):
        Patches([scene(), other], CAVE, CONFIG, CPU)


def test_scene_pairs_are_simulated_when_asked_for():
    data = resolve_data(DataConfig())
    pairs = ScenePairs([load_scene(data, n) for n in data.validation], CAVE, ModelConfig(), CPU)
    assert len(pairs) == 1
    assert pairs[0] is not pairs[0]
    first = next(iter(pairs))
    assert first.name == data.validation[0]
    assert torch.equal(pairs[0].inputs.lms_BSHW, first.inputs.lms_BSHW)


def start_of(protocol: Protocol):
    return partial(Sensor(protocol).start, "local")


@pytest.mark.parametrize("turn", range(TURNS))
@pytest.mark.parametrize("name", ["cave_x4", "yokoya_x4", "dhif_x4"])
def test_bases_are_cut_from_the_turned_scene(turn, name):
    one, protocol = scene(), PROTOCOLS[name]
    patches = Patches([one], protocol, CONFIG, CPU, start=start_of(protocol))
    pair = whole(one, protocol, turn)
    interpolated, base = Sensor(protocol).start("local", pair)
    for top, left in [(16, 40), (16, 16), (8, 56)]:
        t, u = turned_corner((top, left), (64, 96), 32, turn)
        batch = patches.batch([Window(0, top, left, turn)])
        inside = (..., slice(t, t + 32), slice(u, u + 32))
        torch.testing.assert_close(batch.base_BSHW, base[inside], rtol=0, atol=2e-6)
        torch.testing.assert_close(batch.lms_BSHW, interpolated[inside], rtol=0, atol=2e-6)
        torch.testing.assert_close(batch.reference_BSHW, pair.reference_BSHW[inside])
    error = (base - pair.reference_BSHW).abs().mean()
    torch.testing.assert_close(batch.base_error_B, error[None], rtol=1e-5, atol=0)


def test_relative_losses_need_the_errors_of_whole_scenes():
    scenes = [scene(), scene(seed=1)]
    patches = Patches(scenes, CAVE, replace(CONFIG, loss="relative"), CPU)
    batch = patches.batch([Window(1, 0, 0), Window(0, 16, 32), Window(1, 32, 32)])
    errors = [
        (p.lms_BSHW - p.reference_BSHW).abs().mean() for p in (whole(s, CAVE) for s in scenes)
    ]
    expected = torch.stack([errors[1], errors[0], errors[1]])
    torch.testing.assert_close(batch.base_error_B, expected, rtol=1e-5, atol=0)
    assert batch.base_BSHW is batch.lms_BSHW
    fused = batch.base_BSHW + 0.01
    loss = training_loss(
        TrainConfig(loss="relative", ssim_weight=0), fused, batch.reference_BSHW, batch.base_error_B
    )
    means = (fused - batch.reference_BSHW).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss, (means / expected).mean())


def test_patches_alone_have_bases_of_their_own():
    one = scene()
    relative = replace(CONFIG, loss="relative")
    patches = Patches([one], CAVE, relative, CPU, alone=True, start=start_of(CAVE))
    batch = patches.batch([Window(0, 16, 32)])
    cut = replace(one, raw_SHW=one.raw_SHW[:, 16:48, 32:64])
    interpolated, base = start_of(CAVE)(whole(cut, CAVE))
    torch.testing.assert_close(batch.base_BSHW, base, rtol=0, atol=2e-6)
    torch.testing.assert_close(batch.lms_BSHW, interpolated, rtol=0, atol=2e-6)
    pair = whole(one, CAVE)
    error = (start_of(CAVE)(pair)[1] - pair.reference_BSHW).abs().mean()
    torch.testing.assert_close(batch.base_error_B, error[None], rtol=1e-5, atol=0)
    # Only the error of a scene's base is read, and with another loss not even that.
    assert [base for base, _ in patches.bases.values()] == [None]
    patches = Patches([one], CAVE, CONFIG, CPU, alone=True, start=start_of(CAVE))
    assert patches.batch([Window(0, 16, 32)]).base_error_B.isnan().all()
    assert not patches.bases


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear"])
def test_what_is_shown_beside_a_base_is_cut_from_the_whole_scene(upsampling):
    one, protocol = scene(), replace(CAVE, upsampling=upsampling)
    patches = Patches([one], protocol, CONFIG, CPU, start=start_of(protocol))
    interpolated, _ = start_of(protocol)(whole(one, protocol))
    batch = patches.batch([Window(0, 16, 40)])
    inside = (..., slice(16, 48), slice(40, 72))
    torch.testing.assert_close(batch.lms_BSHW, interpolated[inside], rtol=0, atol=2e-6)


def test_errors_of_bases_are_those_of_pixels_with_data():
    valid = np.ones((64, 96), bool)
    valid[:, 48:] = False
    config = replace(CONFIG, loss="relative")
    patches = Patches([replace(scene(), valid_HW=valid)], CAVE, config, CPU)
    batch = patches.batch([Window(0, 16, 8)])
    filled_scene = replace(scene(), raw_SHW=filled(scene().raw_SHW, valid))
    pair = whole(filled_scene, CAVE)
    error = (pair.lms_BSHW - pair.reference_BSHW).abs()[..., :48].mean()
    torch.testing.assert_close(batch.base_error_B, error[None], rtol=1e-5, atol=0)


def test_a_base_of_a_scene_is_refused_with_noise():
    noisy = replace(CAVE, hsi_snr_db=30.0)
    with pytest.raises(UserError, match=r"protocol\.hsi_snr_db.*data\.inputs: patch"):
        Patches([scene()], noisy, CONFIG, CPU, start=start_of(noisy))
    patches = Patches([scene()], noisy, CONFIG, CPU, alone=True, start=start_of(noisy))
    assert patches.batch(patches.windows(1, 0)[:2]).base_BSHW.shape == (2, 8, 32, 32)


def test_bases_of_scenes_with_gaps_are_those_of_filled_scenes():
    gap = np.ones((64, 96), bool)
    gap[:8, :8] = False
    raw = np.where(gap, scene().raw_SHW, 0)
    patches = Patches(
        [replace(scene(), raw_SHW=raw, valid_HW=gap)], CAVE, CONFIG, CPU, start=start_of(CAVE)
    )
    full = replace(scene(), raw_SHW=filled(raw, gap))
    expected = start_of(CAVE)(whole(full, CAVE))[1][..., 16:48, 32:64]
    torch.testing.assert_close(
        patches.batch([Window(0, 16, 32)]).base_BSHW, expected, rtol=0, atol=2e-6
    )
