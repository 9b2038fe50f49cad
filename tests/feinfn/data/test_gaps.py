"""Pixels without data: found as files declare them, and left out of patches, metrics and pairs."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from feinfn.config import TrainConfig
from feinfn.data.images import read_image
from feinfn.data.patches import Patches
from feinfn.data.prepare import prepare, source_files
from feinfn.data.readers.array import Options
from feinfn.data.scene import Scene, read_scene
from feinfn.data.store import read_stored
from feinfn.errors import UserError
from feinfn.metrics.evaluation import ALL_INDICES, compare, evaluate, windows_left_out
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.protocol import reach_px
from feinfn.region import largest_window

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
rasterio = pytest.importorskip("rasterio", reason="GeoTIFF is read through rasterio")
CAVE, CPU = PROTOCOLS["cave_x4"], torch.device("cpu")
WHOLE = Options(full_scale=10000)
RNG = np.random.default_rng(0)
CUBE = RNG.integers(1, 9000, (31, 64, 72)).astype(np.int16)
VALID = np.ones((64, 72), bool)
VALID[:, :5] = VALID[40:44, 60:66] = False


def tiff(path: Path, cube: np.ndarray = CUBE, **profile: object) -> Path:
    shape = dict(zip(("count", "height", "width"), cube.shape, strict=True))
    with rasterio.open(path, "w", "GTiff", dtype=cube.dtype, **shape, **profile) as file:
        file.write(cube)
    return path


def gaps(value: float, dtype: type = np.int16) -> np.ndarray:
    cube = CUBE.astype(dtype)
    cube[4:, ~VALID] = value  # a pixel without data in some bands has none
    return cube


def masked(path: Path) -> Path:
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        tiff(path)
        with rasterio.open(path, "r+") as file:
            file.write_mask(VALID)
    return path


def alpha(path: Path) -> Path:
    tiff(path, np.concatenate([CUBE, np.where(VALID, 255, 0)[None].astype(np.int16)]))
    with rasterio.open(path, "r+") as file:
        file.colorinterp = [*file.colorinterp[:-1], rasterio.enums.ColorInterp.alpha]
    return path


def envi(path: Path, value: float) -> Path:
    gaps(value, np.uint16).tofile(path.with_suffix(".img"))
    path.with_suffix(".hdr").write_text(
        "ENVI\nsamples = 72\nlines = 64\nbands = 31\nheader offset = 0\ninterleave = bsq\n"
        f"data type = 12\nbyte order = 0\ndata ignore value = {value}\n"
    )
    return path.with_suffix(".hdr")


def filled(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file["GT"] = gaps(np.nan, np.float32)
        file["GT"].attrs["_FillValue"] = np.float32(np.nan)
    return path


DECLARED = {
    "-9999": lambda path: tiff(path, gaps(-9999), nodata=-9999),
    "0": lambda path: tiff(path, gaps(0, np.uint16), nodata=0),
    "65535": lambda path: tiff(path, gaps(65535, np.uint16), nodata=65535),
    "nan": lambda path: tiff(path, gaps(np.nan, np.float32), nodata=np.nan),
    "mask": masked,
    "alpha": alpha,
    "ENVI 0": lambda path: envi(path, 0),
    "ENVI 65535": lambda path: envi(path, 65535),
    "HDF5": filled,
}


@pytest.mark.parametrize("how", DECLARED)
def test_pixels_without_data_are_found_as_files_declare_them(how, tmp_path):
    path = DECLARED[how](tmp_path / "a.tif")
    for read in (read_scene, read_image):
        image = read(path, WHOLE)
        np.testing.assert_array_equal(image.valid_HW, VALID)
        assert any("344 of 4608 pixels (7.5%) have no data" in note for note in image.notes)
        assert image.notes
        values = image.cube() if isinstance(image, Scene) else image.values_SHW
        expected = np.where(VALID, CUBE, 0) / 10000
        np.testing.assert_allclose(values, expected, rtol=1e-6)


def test_a_mask_beside_a_raster_is_one_of_its_sources(tmp_path):
    path = tiff(tmp_path / "a.tif")
    assert [s["name"] for s in source_files(path)] == ["a.tif"]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=False), rasterio.open(path, "r+") as file:
        file.write_mask(VALID)
    np.testing.assert_array_equal(read_scene(path, WHOLE).valid_HW, VALID)
    assert [s["name"] for s in source_files(path)] == ["a.tif", "a.tif.msk"]


def test_users_say_what_files_cannot(tmp_path):
    np.save(tmp_path / "a.npy", gaps(-9999))
    told = Options(full_scale=10000, bands_axis=0)
    with pytest.raises(UserError, match=r"from -9999 .* with --no-data"):
        read_scene(tmp_path / "a.npy", told)
    scene = read_scene(tmp_path / "a.npy", replace(told, no_data=-9999))
    np.testing.assert_array_equal(scene.valid_HW, VALID)
    floats = np.where(VALID, CUBE / 10000, -3.4e38).astype(np.float32)
    np.save(tmp_path / "b.npy", floats)
    scene = read_scene(tmp_path / "b.npy", Options(bands_axis=0, no_data=-3.4e38))
    np.testing.assert_array_equal(scene.valid_HW, VALID)


def test_undeclared_values_are_no_gaps_and_empty_bands_are_left_out(tmp_path):
    assert read_scene(tiff(tmp_path / "a.tif", nodata=-1), WHOLE).valid_HW is None
    cube = CUBE.copy()
    cube[[2, 3, 7]] = -1
    scene = read_scene(tiff(tmp_path / "b.tif", cube, nodata=-1), WHOLE)
    assert scene.raw_SHW.shape[0] == 28
    assert scene.notes == ("Of 31 bands, 3 hold no data and are left out: 3-4, 8.",)
    with pytest.raises(UserError, match="found no pixel with data in all 31 bands"):
        read_scene(tiff(tmp_path / "c.tif", np.full_like(CUBE, -1), nodata=-1), WHOLE)


def test_a_fourth_band_that_is_no_mask_stays(tmp_path):
    cube = (CUBE[:4] // 40).astype(np.uint8)
    path = tiff(tmp_path / "a.tif", cube, photometric="RGB")
    image = read_image(path)
    assert (image.values_SHW.shape[0], image.valid_HW) == (4, None)
    named = read_image(tiff(tmp_path / "b.tif", cube, photometric="RGB", ALPHA="YES"))
    assert (named.values_SHW.shape[0], named.valid_HW) == (4, None)
    assert "Band 4 is called alpha but is no mask, so it is taken as a band." in named.notes


@pytest.fixture
def scene(tmp_path) -> Scene:
    path = tiff(tmp_path / "gaps.tif", gaps(-9999), nodata=-9999)
    return read_scene(path, Options(full_scale=10000, wavelengths_nm=np.arange(400, 701, 10.0)))


def test_stores_keep_gaps_and_windows_cut_them(scene, tmp_path):
    (tmp_path / "gaps.bin").touch()
    out = tmp_path / "store.h5"
    prepare({"gaps": tmp_path / "gaps.bin"}, out, read=lambda name, path: scene)
    stored = read_stored(out, "gaps")
    np.testing.assert_array_equal(stored.valid_HW, VALID)
    assert stored.pixel_hash() == scene.pixel_hash()
    assert read_stored(out, "gaps", ((0, 40), (5, 72))).valid_HW is None
    assert read_stored(out, "gaps", ((0, 41), (5, 72))).valid_HW.sum() == 41 * 67 - 6


def test_the_largest_window_with_data_is_found(scene):
    assert largest_window(VALID) == ((0, 64), (5, 60))
    for _ in range(50):
        mask = RNG.random((7, 9)) > 0.3
        mask[3, 4] = True
        (top, bottom), (left, right) = largest_window(mask)
        assert mask[top:bottom, left:right].all()
        areas = [
            (b - t) * (r - x)
            for t in range(7)
            for b in range(t + 1, 8)
            for x in range(9)
            for r in range(x + 1, 10)
            if mask[t:b, x:r].all()
        ]
        assert (bottom - top) * (right - left) == max(areas)
    cropped = scene.without_gaps()
    assert (cropped.raw_SHW.shape, cropped.valid_HW) == ((31, 64, 55), None)
    assert cropped.notes[-1] == "Cropped to the pixels with data: gaps[0:64, 5:60]."


@pytest.mark.parametrize("sampling", ["grid", "random"])
def test_patches_touch_no_gap(scene, sampling):
    config = TrainConfig(patch_px=16, stride_px=8, sampling=sampling)
    patches, reach = Patches([scene], CAVE, config, CPU), reach_px(CAVE)
    places = [w for epoch in range(20) for w in patches.windows(0, epoch)]
    assert len(places) > 100
    for w in places:
        rows, columns = (slice(max(x - reach, 0), x + 16 + reach) for x in (w.top, w.left))
        assert VALID[rows, columns].all()
    assert len({(w.top, w.left) for w in places}) > (len(patches) if sampling == "random" else 0)
    whole = Patches([scene], CAVE, TrainConfig(patch_px=48, stride_px=8), CPU, alone=True)
    assert {(w.top, w.left) for w in whole.grid} <= {(y, 8) for y in range(0, 17, 8)}
    with pytest.raises(UserError, match="windows that touch no pixel without data"):
        Patches([scene], CAVE, TrainConfig(patch_px=64, stride_px=8), CPU)


def test_metrics_do_not_depend_on_what_lies_in_gaps():
    reference = torch.from_numpy(RNG.random((4, 80, 96)))
    fused = (reference + torch.from_numpy(RNG.normal(0, 0.02, (4, 80, 96)))).clamp(0, 1)
    valid = torch.ones(80, 96, dtype=torch.bool)
    valid[:, 64:] = False
    wild = torch.where(valid, fused, torch.rand_like(fused))
    names = ["matlab", "psrt", "uint8", "sfno"]
    cut = compare(fused[..., :64], reference[..., :64], 4, names)
    for image in (fused, wild):
        found = compare(image, reference, 4, names, valid_HW=valid)
        for name in names:
            for index in ALL_INDICES:
                expected = cut[name][index]
                if index == "scc":  # its edges see zeros outside an image, and no gaps
                    expected = compare(fused, reference, 4, [name], ["scc"], valid)[name]["scc"]
                if index != "q2n" or image is wild:
                    assert found[name][index] == pytest.approx(expected, rel=1e-9), (name, index)
    whole = torch.ones_like(valid)
    for index in ALL_INDICES:
        one, other = (
            evaluate(fused, reference, 4, indices=[index], valid_HW=v)[index] for v in (None, whole)
        )
        assert one == pytest.approx(other, rel=1e-12)
    assert windows_left_out(valid, ALL_INDICES) == {
        "ssim": (70 * 32, 70 * 86),
        "scc": (78 * 32, 78 * 94),
        "uiqi": (49 * 32, 49 * 65),
        "q2n": (3, 9),
    }


def test_masks_of_one_file_a_band_are_combined(tmp_path):
    masks = [VALID, np.ones_like(VALID), np.ones_like(VALID)]
    masks[2][50, 50] = False
    for i, (band, mask) in enumerate(zip(CUBE, masks, strict=False), 1):
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            tiff(tmp_path / f"band_{i}.tif", band[None])
            with rasterio.open(tmp_path / f"band_{i}.tif", "r+") as file:
                file.write_mask(mask)
    np.testing.assert_array_equal(read_scene(tmp_path, WHOLE).valid_HW, VALID & masks[2])
