"""Readers on published data: CAVE as distributed, and the sets of the registry."""

import h5py
import numpy as np
import pytest
import scipy.io
from places import SHARED_DATA

from feinfn.data.readers.formats import scenes_in
from feinfn.data.readers.known import KNOWN
from feinfn.data.scene import read_known, read_scene
from feinfn.errors import UserError

SHARED = SHARED_DATA
REMOTE = SHARED / "remote_sensing"
FILES = {
    "indian_pines": REMOTE / "Indian_pines_corrected.npz",
    "jasper": REMOTE / "Jasper.mat",
    "pavia_centre": REMOTE / "PaviaCentre_100x100.mat",
    "paris": REMOTE / "Paris_Hyperion_ALI_hs_ms.mat",
}
published = pytest.mark.skipif(not SHARED.is_dir(), reason="the data are not on this machine")


@published
def test_original_cave_layout_equals_the_prepared_crop():
    scene = read_scene(scenes_in(SHARED / "cave_png")["pompoms_ms"])
    crop = SHARED / "cave_crop256" / "pompoms_ms.h5"
    with h5py.File(crop) as file:
        top, left = file.attrs["crop_y"], file.attrs["crop_x"]
    expected = read_scene(crop)
    window = scene.raw_SHW[:, top : top + 256, left : left + 256]
    np.testing.assert_array_equal(window, expected.raw_SHW)
    np.testing.assert_array_equal(scene.wavelengths_nm, expected.wavelengths_nm)
    assert (scene.name, scene.raw_SHW.shape, scene.bit_depth) == ("pompoms_ms", (31, 512, 512), 16)


@published
def test_the_one_cave_scene_of_eight_bits_is_read():
    scene = read_scene(SHARED / "cave_png" / "watercolors_ms")
    assert (scene.raw_SHW.shape, scene.raw_SHW.dtype) == ((31, 512, 512), np.uint16)
    assert not (scene.raw_SHW % 257).any()
    assert 0.5 < scene.cube().max() <= 1
    assert scene.notes


@published
@pytest.mark.parametrize("name", KNOWN)
def test_known_sets_have_their_shape_range_and_wavelengths(name):
    scene = read_known(name, FILES[name])
    assert scene.raw_SHW.shape == KNOWN[name].shape_SHW
    assert 0.25 < scene.cube().max() <= 1
    assert len(scene.wavelengths_nm) == len(scene.raw_SHW)
    assert (np.diff(scene.wavelengths_nm) > 0).all()
    assert "nominal" in scene.notes[-1]


@published
def test_jasper_stands_as_its_published_abundances_do():
    scene = read_known("jasper", FILES["jasper"])
    file = scipy.io.loadmat(FILES["jasper"])
    mixed_HWS = file["S_GT"] @ file["GT"]
    upright = np.corrcoef(mixed_HWS.ravel(), scene.cube().transpose(1, 2, 0).ravel())[0, 1]
    turned = np.corrcoef(mixed_HWS.ravel(), scene.cube().transpose(2, 1, 0).ravel())[0, 1]
    assert upright > 0.95 > turned
    np.testing.assert_array_equal(
        scene.raw_SHW.sum((1, 2), dtype=np.float64), file["Y"].astype(float).sum(1)
    )


@published
def test_pavia_stands_as_matlab_shows_it():
    scene = read_known("pavia_centre", FILES["pavia_centre"])
    with h5py.File(FILES["pavia_centre"]) as file:
        stored_SWH = file["data"][()]
    sums = scene.cube().sum((0, 1), dtype=np.float64), scene.cube().sum((0, 2), dtype=np.float64)
    np.testing.assert_allclose(sums[0], stored_SWH.sum((0, 2)), rtol=1e-6)
    np.testing.assert_allclose(sums[1], stored_SWH.sum((0, 1)), rtol=1e-6)


@published
def test_indian_pines_stands_as_stored():
    with np.load(FILES["indian_pines"]) as file:
        expected = file["data"].transpose(2, 0, 1)
    np.testing.assert_array_equal(
        read_known("indian_pines", FILES["indian_pines"]).raw_SHW, expected
    )


@published
def test_paris_is_a_pair_on_one_grid_with_the_bands_the_file_kept():
    scene = read_known("paris", FILES["paris"])
    assert scene.msi_MHW.shape == (9, 72, 72)
    numbers = np.concatenate([np.arange(a, b + 1) for a, b in KNOWN["paris"].kept])
    stored = scipy.io.loadmat(FILES["paris"])["non_del_bands"].ravel()
    np.testing.assert_array_equal(numbers, stored)
    # Some ALI band sees what Hyperion sees in the red: registered, and not turned.
    near = int(np.abs(scene.wavelengths_nm - 660).argmin())
    best = max(np.corrcoef(scene.cube()[near].ravel(), m.ravel())[0, 1] for m in scene.msi_MHW)
    turned = max(np.corrcoef(scene.cube()[near].ravel(), m.T.ravel())[0, 1] for m in scene.msi_MHW)
    assert best > 0.8 > 0.5 > turned


def test_nominal_grids_drop_the_bands_that_were_removed():
    assert {n: len(k.wavelengths_nm()) for n, k in KNOWN.items()} == {
        n: k.shape_SHW[0] for n, k in KNOWN.items()
    }
    pines = KNOWN["indian_pines"].wavelengths_nm()
    assert pines[0] == 400
    assert pines[103] - pines[102] == pytest.approx(6 * 2100 / 219)


def test_other_files_are_not_taken_for_a_known_set(tmp_path):
    np.savez(tmp_path / "a.npz", data=np.zeros((4, 5, 6), np.uint16))
    with pytest.raises(UserError, match=r"\(6, 4, 5\), expected \(200, 145, 145\)"):
        read_known("indian_pines", tmp_path / "a.npz")
    with pytest.raises(UserError, match="expected one of indian_pines"):
        read_known("mars", tmp_path / "a.npz")
