"""Scenes with gaps simulated whole: masks of all images, scores, and files for other programs."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.io
import torch
from networks import NARROW

from feinfn.config import DataConfig
from feinfn.data import source
from feinfn.data.export import KEYS, export, simulated_pairs
from feinfn.data.pairs import (
    NamedInputs,
    ScenePairs,
    StoredPairs,
    observed_inputs,
    simulated_inputs,
    with_reference,
)
from feinfn.data.prepare import prepare
from feinfn.data.readers.array import Options
from feinfn.data.readers.formats import read_prepared
from feinfn.data.scene import Scene, make_scene, read_scene
from feinfn.errors import UserError
from feinfn.evaluation import by_network, evaluate_method
from feinfn.methods.registry import build
from feinfn.metrics.evaluation import Comparison, compare, left_out_words
from feinfn.metrics.label import CONVENTION
from feinfn.metrics.no_reference import qnr
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import lr_pixels_with_data, spatial

CAVE, CPU = PROTOCOLS["cave_x4"], torch.device("cpu")
NM = np.arange(400.0, 701.0, 10.0)
RNG = np.random.default_rng(0)
CUBE = RNG.random((31, 48, 64)).astype(np.float32)
VALID = np.ones((48, 64), bool)
VALID[:, :3] = VALID[21, 33] = VALID[40:44, 50:54] = False


def scene(fill: float = 0.0, cube: np.ndarray = CUBE) -> Scene:
    """Return a scene with some number in its gaps."""
    made = make_scene("gaps", np.where(VALID, cube, np.float32(fill)), NM, "memory")
    return replace(made, valid_HW=VALID)


PROTOCOLS_OF_PSFS = {
    "gaussian": CAVE,
    "even box": replace(CAVE, psf="box", psf_px=4, psf_sigma_px=None, phase_px=1),
    "delta": replace(CAVE, psf="delta", psf_px=1, psf_sigma_px=None, phase_px=3),
    "circular": replace(CAVE, psf_border="circular"),
    "reflect": replace(CAVE, psf_border="reflect"),
    "narrow": replace(CAVE, psf_px=9, psf_sigma_px=0.02),
}


@pytest.mark.parametrize("name", PROTOCOLS_OF_PSFS)
def test_lr_pixels_without_data_are_those_that_see_a_gap(name):
    protocol = PROTOCOLS_OF_PSFS[name]
    x = torch.from_numpy(CUBE[:1]).double()[None]
    changed = torch.where(torch.from_numpy(VALID), x, x + 1e9)
    blur = spatial(protocol)
    seen = (blur(changed) != blur(x))[0, 0].numpy()
    lr_valid = lr_pixels_with_data(protocol, VALID)
    np.testing.assert_array_equal(~lr_valid, seen)
    assert 0 < seen.mean() < 1
    assert lr_pixels_with_data(protocol, None) is None


@pytest.mark.parametrize("snr_db", [None, 20.0])
def test_what_lies_in_gaps_changes_nothing(snr_db):
    protocol = replace(CAVE, hsi_snr_db=snr_db, msi_snr_db=snr_db, lr_bits=12)
    network = build(NARROW)
    results = []
    for fill in (0.0, 0.3, 1.0):
        images = ScenePairs([scene(fill)], protocol, NARROW, CPU)
        (one,) = evaluate_method(by_network(network), images)
        results.append((one, [x.clone() for x in one.image.inputs.inputs()]))
    first, inputs = results[0]
    for one, others in results[1:]:
        assert all(map(torch.equal, inputs, others))
        assert torch.equal(one.fused_SHW, first.fused_SHW)
        assert one.scores == first.scores
    expected = VALID & lr_pixels_with_data(protocol, VALID).repeat(4, 0).repeat(4, 1)
    np.testing.assert_array_equal(first.image.valid, expected)
    assert (first.fused_SHW[:, ~expected] == 0).all()
    assert (first.image.reference[:, ~VALID] == 0).all()
    np.testing.assert_array_equal(first.image.reference[:, VALID], CUBE[:, VALID])
    valid = first.image.valid
    error = (first.fused_SHW.double() - first.image.reference.double())[:, valid]
    psnr = -10 * torch.log10(error.square().mean(1)).mean()
    assert first.scores[CONVENTION]["psnr"] == pytest.approx(psnr.item(), rel=1e-12)
    assert f"{(~expected).sum()} of 3072 pixels have no data" in left_out_words(valid, ["psnr"])
    assert left_out_words(valid, ["ssim"]).endswith(" of 2052")


def test_where_no_gap_is_near_inputs_are_those_of_the_whole_scene():
    whole = make_scene("gaps", CUBE, NM, "memory")
    image, plain = (simulated_inputs(x, CAVE, CPU) for x in (scene(), whole))
    assert plain.valid is None
    assert plain.msi_valid_HW is None
    valid, lr_valid = image.msi_valid_HW, image.lr_valid_hw
    for name, mask in (("msi_BMHW", valid), ("lr_hsi_BShw", lr_valid), ("reference_BSHW", valid)):
        a, b = (getattr(x.inputs, name)[0][:, mask] for x in (image, plain))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_noise_has_the_power_of_the_pixels_with_data():
    flat = np.where(VALID, np.float32(0.5), 1.0).repeat(31).reshape(48, 64, 31)
    one = scene(cube=np.ascontiguousarray(np.moveaxis(flat, 2, 0)).astype(np.float32))
    clean, noisy = (
        simulated_inputs(one, replace(CAVE, msi_snr_db=snr), CPU).inputs.msi_BMHW
        for snr in (None, 20.0)
    )
    sigma = (noisy - clean).std(dim=(2, 3))
    torch.testing.assert_close(sigma, clean[..., 30, 30] / 10, rtol=0.05, atol=0)


def test_a_scene_whose_gaps_are_everywhere_is_refused():
    mask = np.ones((48, 64), bool)
    mask[::2, ::2] = False
    with pytest.raises(UserError, match=r"memory: found pixels without data within the PSF \(3 px"):
        simulated_inputs(replace(scene(), valid_HW=mask), CAVE, CPU)


MEASURED = replace(CAVE, srf="measured", msi_order=("x", "y"))


def real_pair(folder) -> Scene:
    msi = RNG.random((192, 256, 2))
    msi[100, 100, 0] = -1
    hsi = np.moveaxis(CUBE[:5], 0, -1).astype(np.float64)
    hsi[:, :3] = -1
    scipy.io.savemat(folder / "pair.mat", {"HSim": hsi, "MSim": msi})
    return read_scene(folder / "pair.mat", Options(no_data=-1))


def test_gaps_of_a_pair_are_those_of_both_images(tmp_path):
    one = real_pair(tmp_path)
    expected = np.ones((48, 64), bool)
    expected[:, :3] = expected[25, 25] = False
    np.testing.assert_array_equal(one.valid_HW, expected)
    observed = observed_inputs(one, MEASURED, CPU)
    assert observed.valid.shape == (192, 256)
    np.testing.assert_array_equal(observed.valid, expected.repeat(4, 0).repeat(4, 1))
    assert (observed.inputs.lr_hsi_BShw[0, :, :, :3] > 0).all()
    degraded = with_reference(one, MEASURED)
    finer = torch.from_numpy(~expected.repeat(4, 0).repeat(4, 1)).double()[None, None]
    touched = spatial(MEASURED)(finer)[0, 0].numpy() > 0
    np.testing.assert_array_equal(degraded.valid_HW, expected & ~touched)


def test_a_pair_without_any_common_ground_is_refused(tmp_path):
    one = replace(real_pair(tmp_path), valid_HW=np.zeros((48, 64), bool))
    with pytest.raises(UserError, match=r"pair.mat: found no pixel with data in both cube and MSI"):
        observed_inputs(one, MEASURED, CPU)


def test_indices_without_reference_leave_out_blocks_that_touch_gaps():
    fused, lr_hsi = torch.rand(4, 64, 96), torch.rand(4, 16, 24)
    msi = torch.rand(2, 64, 96)
    valid = torch.ones(64, 96, dtype=torch.bool)
    valid[:, 64:] = False
    for x in (fused, msi):
        x[:, ~valid] = 9.0
    cut = qnr(fused[..., :64], lr_hsi[..., :16], msi[..., :64])
    assert qnr(fused, lr_hsi, msi, valid_HW=valid) == pytest.approx(cut, rel=1e-9)
    assert np.isnan(qnr(fused, lr_hsi, msi, valid_HW=torch.zeros_like(valid))["qnr"])


def test_bands_and_maps_leave_out_what_images_leave_out():
    reference, valid = torch.from_numpy(CUBE).double(), torch.from_numpy(VALID)
    fused = torch.where(valid, reference * 0.9, 0.3)
    bands = Comparison(fused, reference, valid).per_band()
    whole = compare(fused, reference, 4, [CONVENTION], valid_HW=valid)[CONVENTION]
    for name in ("psnr", "ssim", "cc", "uiqi"):
        assert bands[name].mean().item() == pytest.approx(whole[name], nan_ok=True)
    drawn = Comparison(fused, reference, valid).maps()
    for x in drawn.values():
        np.testing.assert_array_equal(torch.isnan(x).reshape(-1, 48, 64)[0], ~VALID)


def test_exported_gaps_are_nan_and_read_back(tmp_path):
    file = tmp_path / "test.h5"
    assert export(simulated_pairs([scene()], CAVE, None), file, {}) == 1
    image = simulated_inputs(scene(), CAVE, CPU, 0)
    with h5py.File(file) as stored:
        masks = {key: ~np.isnan(stored[key][0]).any(0) for key in KEYS}
        assert all(np.isnan(stored[key].attrs["_FillValue"]) for key in KEYS)
    np.testing.assert_array_equal(masks["GT"], VALID)
    np.testing.assert_array_equal(masks["RGB"], VALID)
    np.testing.assert_array_equal(masks["LRHSI"], image.lr_valid_hw)
    np.testing.assert_array_equal(masks["HSI_up"], image.lr_valid_hw.repeat(4, 0).repeat(4, 1))
    images = StoredPairs([read_prepared(file)], CAVE, NARROW, CPU)
    method = {"upsampled": lambda image: image.inputs.lms_BSHW[0]}["upsampled"]
    (one,) = evaluate_method(method, images)
    np.testing.assert_array_equal(one.image.valid, image.valid)
    (own,) = evaluate_method(method, ScenePairs([scene()], CAVE, NARROW, CPU))
    assert one.scores == own.scores
    with pytest.raises(UserError, match=r"test\.h5: found pixels without data in image 0"):
        images.batch([0])
    for pair in simulated_pairs([scene()], CAVE, 16, 4):
        assert torch.isfinite(pair.reference_BSHW).all()


def test_scenes_with_gaps_are_surveyed_in_every_part(tmp_path):
    (tmp_path / "gaps.bin").touch()
    out = tmp_path / "store.h5"
    prepare({"gaps": tmp_path / "gaps.bin"}, out, read=lambda name, path: scene())
    names = ("gaps[0:16, 0:64]", "gaps[16:32, 0:64]", "gaps[32:48, 0:64]")
    parts = dict(zip(("train", "validation", "test"), ((n,) for n in names), strict=True))
    found = source.survey(DataConfig(source=str(out), **parts))
    assert [x.shape_SHW for x in found.scenes] == [(31, 16, 64)] * 3
    windows = [source.load_scene(DataConfig(source=str(out), **parts), name) for name in names]
    assert all(isinstance(x, NamedInputs) for x in ScenePairs(windows, CAVE, NARROW, CPU))
