"""`mhiflab fuse` on pairs that say where they lie, what their bands are, and their gaps."""
# ruff: noqa: F811

import re
import warnings
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
import pytest
from test_fuse_files import files, fuse_to, model  # noqa: F401

from feinfn.data.images import read_image
from feinfn.data.readers.array import Options
from feinfn.errors import UserError
from feinfn.inference.apply import fuse_files
from feinfn.inference.scores import score_files
from mhiflab.render import fused as fused_render
from mhiflab.render.fused import quick_look

rasterio = pytest.importorskip("rasterio", reason="GeoTIFF is read through rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NM = np.arange(400, 701, 10.0)
UP = rasterio.Affine(10, 0, 500000, 0, -10, 4100000)
COARSE = UP @ rasterio.Affine.scale(4)


def raster(path: Path, cube: np.ndarray, transform: object, **more: object) -> Path:
    shape = dict(zip(("count", "height", "width"), cube.shape, strict=True))
    profile = {"crs": "EPSG:32633", **more}
    with (
        warnings.catch_warnings(action="ignore"),
        rasterio.open(
            path, "w", "GTiff", dtype=cube.dtype, transform=transform, **shape, **profile
        ) as file,
    ):
        file.write(cube)
    return path


@pytest.fixture
def pair(files, tmp_path):
    """Return LR-HSI and MSI as georeferenced GeoTIFF."""
    hsi = raster(tmp_path / "hsi.tif", np.load(files["hsi"]), COARSE)
    with rasterio.open(hsi, "r+") as file:
        file.descriptions = [f"{nm:g} nm" for nm in NM]
    return hsi, raster(tmp_path / "msi.tif", np.load(files["msi"]), UP, photometric="minisblack")


@pytest.fixture
def expected(model, files):
    return fuse_files(model, files["hsi"], files["msi"])


def test_a_pair_keeps_place_and_wavelengths_in_geotiff_and_envi(
    fuse_to, pair, expected, model, tmp_path
):
    fuse_to(hsi=pair[0], msi=pair[1], fused=tmp_path / "fused.tif")
    fuse_files(model, *pair, out=tmp_path / "python.tif")
    fuse_to(hsi=pair[0], msi=pair[1], fused=tmp_path / "envi.hdr")
    assert {p.name for p in tmp_path.glob("envi.*")} == {"envi.hdr", "envi.img", "envi.png"}
    for name in ("fused.tif", "python.tif", "envi.img"):
        with rasterio.open(tmp_path / name) as file:
            assert file.crs == "EPSG:32633"
            assert file.transform == UP
            assert file.nodata is None
            np.testing.assert_array_equal(file.read(), expected)
        image = read_image(tmp_path / name)
        np.testing.assert_array_equal(image.wavelengths_nm, NM)
        np.testing.assert_array_equal(image.values_SHW, expected)
    first = (tmp_path / "fused.tif").read_bytes()
    fuse_to(hsi=pair[0], msi=pair[1], fused=tmp_path / "fused.tif", force=True)
    assert (tmp_path / "fused.tif").read_bytes() == first
    with pytest.raises(UserError, match=r"envi\.hdr: found a file there"):
        fuse_to(hsi=pair[0], msi=pair[1], fused=tmp_path / "envi.hdr")


def test_another_place_is_refused_and_another_orientation_turned(
    fuse_to, pair, files, expected, model, tmp_path, capsys
):
    hsi, msi = pair
    values = np.load(files["msi"])
    for shift, crs, message in (
        (
            20000,
            "EPSG:32633",
            r"msi\.tif: found ground from 700000 to 700160 in x, expected 500000",
        ),
        (3, "EPSG:32633", r"ground from 500030 to 500190"),
        (0, "EPSG:32634", r"found coordinates in EPSG:32634, expected EPSG:32633"),
    ):
        raster(msi, values, UP @ rasterio.Affine.translation(shift, 0), crs=crs)
        with pytest.raises(UserError, match=message):
            fuse_files(model, hsi, msi)
    raster(msi, values, UP @ rasterio.Affine.translation(1, 0))
    np.testing.assert_array_equal(fuse_files(model, hsi, msi), expected)
    raster(msi, values, UP @ rasterio.Affine.rotation(20))
    with pytest.raises(UserError, match="rotated"):
        fuse_files(model, hsi, msi)
    for rows, columns in ((-1, 1), (1, -1), (-1, -1)):
        turn = rasterio.Affine.translation(16 * (columns < 0), 16 * (rows < 0))
        turn @= rasterio.Affine.scale(columns, rows)
        raster(msi, values[:, ::rows, ::columns], UP @ turn)
        fuse_to(hsi=hsi, msi=msi, fused=tmp_path / "turned.tif", force=True)
        assert "It lies the other way round" in capsys.readouterr().out
        with rasterio.open(tmp_path / "turned.tif") as file:
            assert file.transform == UP
            np.testing.assert_array_equal(file.read(), expected)
    # Where only one of the two says where it lies, nothing can be compared.
    np.testing.assert_array_equal(fuse_files(model, files["hsi"], pair[1]).shape, expected.shape)


@pytest.mark.parametrize("how", ["colours", "descriptions", "names", "more bands"])
def test_bands_that_say_what_they_are_are_put_in_order(
    how, fuse_to, pair, files, expected, tmp_path, capsys
):
    blue, green, red = np.load(files["msi"])
    stored, order = np.stack([red, green, blue]), "3, 2, 1"
    if how == "more bands":
        stored, order = np.stack([red, blue, green, red * 0]), "2, 3, 1"
    path = raster(tmp_path / "rgb.tif", stored, UP, photometric="minisblack")
    words = {"descriptions": ["Red", "Green", "Blue"], "names": ["R", "G", "B"]}
    with rasterio.open(path, "r+") as file:
        if how == "colours":
            file.colorinterp = [rasterio.enums.ColorInterp[c] for c in ("red", "green", "blue")]
        elif how == "more bands":
            file.descriptions = ["red band", "blue band", "green band", "nir"]
        else:
            file.descriptions = words[how]
    fuse_to(hsi=pair[0], msi=path)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "fused.npy"), expected)
    assert f"bands {order} of the file, by their" in " ".join(capsys.readouterr().out.split())


def test_bands_that_are_partly_named_are_completed_or_asked(pair, files, model):
    for names, message in (
        (("nir", "red", "blue", "green"), None),
        (("", "red", "blue"), None),
        (("", "", "blue"), "found B in band 3 of 3, .* B, G, R .*--msi-bands"),
        (("blue", "blue", "green"), "found G in band 3"),
        (("blue", "", ""), None),
        (("x", "y", "z"), None),
    ):
        raster(pair[1], np.load(files["msi"])[[0] * (len(names) - 3) + [0, 1, 2]], UP)
        with rasterio.open(pair[1], "r+") as file:
            file.colorinterp = [rasterio.enums.ColorInterp.undefined] * len(names)
            file.descriptions = names
        if message is None:
            assert fuse_files(model, *pair).shape == (31, 16, 16)
        else:
            with pytest.raises(UserError, match=message):
                fuse_files(model, *pair)


def test_borders_without_data_come_back_without_data(fuse_to, pair, files, model, tmp_path, capsys):
    msi, hsi = np.load(files["msi"]), np.load(files["hsi"])
    msi[:, :, :3] = np.nan
    hsi[:, 3, 3] = -1
    valid = np.ones((16, 16), bool)
    valid[:, :3] = valid[12:, 12:] = False
    place = {"hsi": raster(tmp_path / "h.tif", hsi, COARSE, nodata=-1)}
    place["msi"] = raster(tmp_path / "m.tif", msi, UP, nodata=np.nan, photometric="minisblack")
    for name in ("f.tif", "f.hdr", "f.h5", "f.npy"):
        fuse_to(**place, fused=tmp_path / name, force=True)
    shown = capsys.readouterr().out
    assert "48 of 256 pixels (18.8%) have no data" in shown
    fused = np.load(tmp_path / "f.npy")
    np.testing.assert_array_equal(np.isnan(fused), np.broadcast_to(~valid, fused.shape))
    with rasterio.open(tmp_path / "f.tif") as file:
        assert np.isnan(file.nodata)
        assert (file.transform, file.crs) == (UP, "EPSG:32633")
    with rasterio.open(tmp_path / "f.img") as file:
        assert file.nodata == -9999
    with h5py.File(tmp_path / "f.h5") as file:
        assert np.isnan(file["fused"].attrs["_FillValue"])
    for name in ("f.tif", "f.hdr", "f.h5"):
        image = read_image(tmp_path / name)
        np.testing.assert_array_equal(image.valid_HW, valid)
        np.testing.assert_array_equal(image.values_SHW[:, valid], fused[:, valid])
        told = Options()
        scores = score_files((tmp_path / name, told), (files["reference"], told), 4, ["matlab"])
        error = (fused - np.load(files["reference"]))[:, valid].astype(np.float64)
        exact = -10 * np.log10((error**2).mean(axis=1)).mean()
        assert scores.values["matlab"]["psnr"] == pytest.approx(exact, rel=1e-9)
        assert re.search(r"windows that touch them: SSIM [1-9]\d* of", scores.gaps())
    # The errors in the picture are white there, and where the reference has no data.
    reference = np.load(files["reference"])
    reference[:, 0, 15] = -1
    gap = raster(tmp_path / "r.tif", reference, UP, nodata=-1)
    drawn_with = mock.Mock(wraps=fused_render.quick_look)
    with mock.patch.object(fused_render, "quick_look", drawn_with):
        fuse_to(**place, fused=tmp_path / "f.npy", reference=gap, force=True)
    look = quick_look(*drawn_with.call_args.args)
    valid[0, 15] = False
    drawn = [image.get_array() for axis in look.axes for image in axis.images]
    errors = [x for x in drawn if x.shape == (16, 16)]
    np.testing.assert_array_equal(np.isnan(np.ma.filled(errors[0], np.nan)), ~valid)
    # What lies in the gaps changes nothing.
    msi[:, :, :3] = 0.7
    raster(place["msi"], msi, UP, nodata=0.7, photometric="minisblack")
    again = fuse_files(model, place["hsi"], place["msi"])
    np.testing.assert_array_equal(again, fused)


def test_images_whose_data_share_no_ground_are_refused(fuse_to, files, tmp_path):
    msi, hsi = np.load(files["msi"]), np.load(files["hsi"])
    msi[:, :, :8] = hsi[:, :, 2:] = -1
    place = {"hsi": raster(tmp_path / "h.tif", hsi, COARSE, nodata=-1)}
    place["msi"] = raster(tmp_path / "m.tif", msi, UP, nodata=-1, photometric="minisblack")
    with pytest.raises(UserError, match=r"h\.tif and .*m\.tif: found no pixel with data in both"):
        fuse_to(**place, fused=tmp_path / "f.npy")
    assert not (tmp_path / "f.npy").exists()


def test_scores_compare_places_and_turn_too(pair, files, tmp_path):
    cube = np.load(files["reference"])
    fused = raster(tmp_path / "a.tif", cube, UP)
    turned = UP @ rasterio.Affine.translation(0, 16) @ rasterio.Affine.scale(1, -1)
    down = raster(tmp_path / "b.tif", cube[:, ::-1], turned)
    told = Options()
    scores = score_files((fused, told), (down, told), 4, ["matlab"])
    assert scores.values["matlab"]["psnr"] == np.inf
    assert scores.notes[-1].endswith(
        "b.tif: It lies the other way round than a.tif, and is turned."
    )
    far = raster(tmp_path / "c.tif", cube, UP @ rasterio.Affine.translation(999, 0))
    with pytest.raises(UserError, match=r"c\.tif: found ground from"):
        score_files((fused, told), (far, told), 4, ["matlab"])
