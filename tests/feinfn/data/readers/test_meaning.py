"""Numbers that mean something else than they seem to: read as declared, or refused."""

import h5py
import numpy as np
import pytest
from test_readers import CUBE, envi

from feinfn.data.images import read_image
from feinfn.data.readers.array import Options
from feinfn.data.scene import read_scene
from feinfn.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
rasterio = pytest.importorskip("rasterio", reason="ENVI and GeoTIFF are read through rasterio")
NM = np.linspace(450.0, 650.0, 5)
TRUTH = np.random.default_rng(0).integers(1000, 9000, (5, 12, 14))
HEIGHT, WIDTH = TRUTH.shape[1:]


def netcdf(path, stored: np.ndarray, nm: np.ndarray = NM, **attributes: object):
    with h5py.File(path / "a.nc", "w") as file:
        file["GT"], file["wavelength_nm"] = stored, nm
        file["GT"].attrs.update(attributes)
    return path / "a.nc"


def gaps(*values: int) -> np.ndarray:
    stored = TRUTH.astype("i2")
    for row, value in enumerate(values):
        stored[1, row] = value
    return stored


@pytest.mark.parametrize(
    ("values", "attributes"),
    [
        ((9500,), {"valid_range": np.array([0, 9000], "i2")}),
        ((-5, 9500), {"valid_min": np.int16(0), "valid_max": np.int16(9000)}),
        ((-1, 9999), {"_FillValue": np.int16(-1), "missing_value": np.int16(9999)}),
        ((-1,), {"_FillValue": np.int16(-1), "missing_value": np.int16(-1)}),
    ],
)
def test_every_number_declared_to_be_none_is_none(values, attributes, tmp_path):
    path = netcdf(tmp_path, gaps(*values), scale_factor=1e-4, **attributes)
    for read in (read_scene, read_image):
        image = read(path)
        assert image.valid_HW.sum() == (HEIGHT - len(values)) * WIDTH
        assert not image.valid_HW[: len(values)].any()
    np.testing.assert_allclose(
        read_image(path).values_SHW[:, image.valid_HW], TRUTH[:, image.valid_HW] / 10000
    )


def test_integers_marked_as_unsigned_are(tmp_path):
    stored = (TRUTH * 7).astype("u2")
    stored[2, 0, 0] = 65535
    path = netcdf(
        tmp_path, stored.view("i2"), full_scale=70000.0, _Unsigned="true", _FillValue=np.int16(-1)
    )
    scene = read_scene(path)
    assert scene.raw_SHW.dtype == np.uint16
    assert (~scene.valid_HW).sum() == 1
    np.testing.assert_allclose(scene.cube()[:, 1:], TRUTH[:, 1:] / 10000, rtol=1e-6)


@pytest.mark.parametrize(
    ("dtype", "value", "attributes"),
    [
        ("u2", 55537, {"missing_value": np.int16(-9999)}),
        ("u2", 55537, {"missing_value": np.int32(-9999)}),
        ("u2", 60000, {"valid_max": np.int32(100000)}),
        ("u1", 255, {"_FillValue": np.int8(-1)}),
    ],
)
def test_numbers_that_a_type_cannot_hold_declare_nothing(dtype, value, attributes, tmp_path):
    stored = (TRUTH // 100).astype(dtype)
    stored[1, 0] = value
    image = read_image(netcdf(tmp_path, stored, full_scale=65535.0, **attributes))
    assert image.valid_HW is None
    np.testing.assert_allclose(image.values_SHW[1, 0], value / 65535)


@pytest.mark.parametrize("scale", [None, 0.5])
def test_percent_is_a_hundredth(scale, tmp_path):
    factor = {} if scale is None else {"scale_factor": scale}
    path = netcdf(tmp_path, (TRUTH / 100 / (scale or 1)).astype("f4"), units="percent", **factor)
    np.testing.assert_allclose(read_scene(path).cube(), TRUTH / 10000, rtol=1e-6)


def test_wavelengths_in_other_units_than_said_are_asked_for(tmp_path):
    path = netcdf(tmp_path, TRUTH.astype("u2"), NM / 1000, full_scale=10000.0)
    with pytest.raises(UserError, match=r"0\.45 to 0\.65 nm in wavelength_nm, expected nm"):
        read_scene(path)
    np.testing.assert_array_equal(read_scene(path, Options(wavelengths_nm=NM)).wavelengths_nm, NM)
    angstrom = ", ".join(map(str, np.linspace(4000, 7000, len(CUBE))))
    path = envi(tmp_path, CUBE, f"wavelength = {{{angstrom}}}\n")
    with pytest.raises(UserError, match="4000 to 7000 without a unit, expected nm"):
        read_scene(path, Options(full_scale=65535))


def test_a_header_of_a_smaller_file_is_refused(tmp_path):
    path = envi(tmp_path)
    path.write_text(path.read_text().replace(f"lines = {CUBE.shape[1]}", "lines = 2"))
    with pytest.raises(UserError, match=r"found .* bytes, expected .* that of a smaller file"):
        read_scene(path, Options(full_scale=65535))


def tiff(path, pages: int = 1, **profile: object):
    size = {"count": 1, "height": HEIGHT, "width": WIDTH, "dtype": "uint8"}
    for page in range(pages):
        more = {"APPEND_SUBDATASET": "YES"} if page else {}
        with rasterio.open(path / "a.tif", "w", "GTiff", **size, **profile, **more) as file:
            file.write((TRUTH[:1] // 40).astype(np.uint8))
    return path / "a.tif"


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"pages": 3}, "found 3 pages, expected one with all bands"),
        ({"photometric": "palette"}, "found indices of a colour table"),
        ({"photometric": "miniswhite"}, "found numbers of which 0 is white"),
    ],
)
def test_tiff_that_does_not_hold_light_is_refused(profile, message, tmp_path):
    path = tiff(tmp_path, **profile)
    if profile.get("photometric") == "palette":
        with rasterio.open(path, "r+") as file:
            file.write_colormap(1, {i: (i, 0, 0, 255) for i in range(256)})
    for read in (read_scene, read_image):
        with pytest.raises(UserError, match=message):
            read(path)
