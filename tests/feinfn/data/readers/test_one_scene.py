"""One scene in every format, order, type and scale: one fingerprint; and layouts of agencies."""

import itertools
import tempfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from feinfn.data.images import read_image
from feinfn.data.readers.array import Options
from feinfn.data.readers.formats import open_file
from feinfn.data.scene import read_scene
from feinfn.errors import UserError
from feinfn.inference.scores import score_files

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
rasterio = pytest.importorskip("rasterio", reason="ENVI and GeoTIFF are read through rasterio")
BANDS, HEIGHT, WIDTH = 7, 12, 12
NM = np.linspace(420.0, 660.0, BANDS)
STEPS = np.random.default_rng(3).integers(0, 101, (BANDS, HEIGHT, WIDTH))
"""The scene in percent: every type and every scale below holds these numbers exactly."""

Told = dict[str, object]
ENVI_TYPES = {"u1": 1, "i2": 2, "i4": 3, "f4": 4, "f8": 5, "u2": 12}


def npy(path: Path, x: np.ndarray, scale: float, nm: np.ndarray) -> Told:
    np.save(path.with_suffix(".npy"), x)
    return {"wavelengths_nm": nm, "full_scale": scale, "bands_axis": 0}


def npz_last(path: Path, x: np.ndarray, scale: float, nm: np.ndarray) -> Told:
    np.savez(path.with_suffix(".npz"), a=np.moveaxis(x, 0, -1), b=nm)
    return {"wavelengths_nm": nm, "full_scale": scale, "bands_axis": 2, "key": "a"}


def mat(path: Path, x: np.ndarray, scale: float, nm: np.ndarray) -> Told:
    scipy.io.savemat(path.with_suffix(".mat"), {"info": {"cube": np.moveaxis(x, 0, -1)}})
    return {"wavelengths_nm": nm, "full_scale": scale, "key": "info.cube"}


def mat73_named_h5(path: Path, x: np.ndarray, scale: float, nm: np.ndarray) -> Told:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        file["cube"] = np.moveaxis(x, 0, -1).T
        file["cube"].attrs["MATLAB_class"] = np.bytes_("double")
    return {"wavelengths_nm": nm, "full_scale": scale}


def h5_named_mat(path: Path, x: np.ndarray, scale: float, nm: np.ndarray) -> Told:
    with h5py.File(path.with_suffix(".mat"), "w") as file:
        file["GT"], file["wavelength_nm"] = x, nm
        file["GT"].attrs["full_scale"] = scale
    return {}


def netcdf(path: Path, x: np.ndarray, scale: float, nm: np.ndarray) -> Told:
    with h5py.File(path.with_suffix(".nc"), "w") as file:
        file["reflectance"] = np.moveaxis(x, 0, -1)
        file["reflectance"].attrs["scale_factor"] = np.float32(1 / scale)
        for i, name in enumerate(("downtrack", "crosstrack", "bands")):
            file[name] = np.zeros(file["reflectance"].shape[i], "f4")
            file[name].make_scale(name)
            file["reflectance"].dims[i].attach_scale(file[name])
        file["sensor_band_parameters/wavelengths"] = nm / 1000
        file["sensor_band_parameters/wavelengths"].attrs["units"] = "um"
    return {}


def tif(path: Path, x: np.ndarray, scale: float, nm: np.ndarray) -> Told:
    profile = {"count": len(x), "height": x.shape[1], "width": x.shape[2], "dtype": x.dtype}
    with rasterio.open(path.with_suffix(".tif"), "w", "GTiff", **profile) as file:
        file.write(x)
        file.descriptions = [f"{n!r} nm" for n in nm.tolist()]
        file.scales = [1 / scale] * len(x)
    return {}


def tif_bands(path: Path, x: np.ndarray, scale: float, nm: np.ndarray) -> Told:
    path.mkdir()
    for i, band in enumerate(x):
        tif(path / f"band_{i + 1}", band[None], scale, nm[i : i + 1])
    return {}


def envi(interleave: str, order: str, offset: int) -> Callable[..., Told]:
    axes = {"bsq": (0, 1, 2), "bil": (1, 0, 2), "bip": (1, 2, 0)}[interleave]

    def write(path: Path, x: np.ndarray, scale: float, nm: np.ndarray) -> Told:
        data = x.transpose(axes).astype(x.dtype.newbyteorder(order)).tobytes()
        path.with_suffix(".raw").write_bytes(b"\x07" * offset + data)
        path.with_suffix(".hdr").write_text(
            f"ENVI\nsamples = {x.shape[2]}\nlines = {x.shape[1]}\nbands = {len(x)}\n"
            f"header offset = {offset}\ninterleave = {interleave}\n"
            f"data type = {ENVI_TYPES[x.dtype.str[1:]]}\nbyte order = {int(order == '>')}\n"
            f"wavelength units = Nanometers\nreflectance scale factor = {scale}\n"
            f"wavelength = {{{', '.join(map(repr, nm.tolist()))}}}\n"
        )
        return {}

    return write


WRITERS: dict[str, Callable[..., Told]] = {
    f.__name__: f
    for f in (npy, npz_last, mat, mat73_named_h5, h5_named_mat, netcdf, tif, tif_bands)
} | {
    f"envi {interleave} {order} {offset}": envi(interleave, order, offset)
    for interleave, (order, offset) in itertools.product(
        ("bsq", "bil", "bip"), (("<", 0), (">", 37))
    )
}
TYPES = {"u1": (100,), "i2": (100, 10000), "u2": (100, 10000, 50000), "i4": (10000,)}
TYPES |= {"f4": (1, 100), "f8": (1, 100)}


@st.composite
def stored_scenes(draw: st.DrawFn) -> tuple[str, str, int, bool, np.ndarray]:
    """Draw a writer, a type, a scale of it, an order of bands, and a scene in percent."""
    kind = draw(st.sampled_from(sorted(TYPES)))
    size = tuple(draw(st.integers(low, 13)) for low in (2, 11, 11))
    steps = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 101, size)
    name, scale = draw(st.sampled_from(sorted(WRITERS))), draw(st.sampled_from(TYPES[kind]))
    return name, kind, scale, draw(st.booleans()), steps


@settings(max_examples=110, derandomize=True, database=None, deadline=None)
@given(stored_scenes())
def test_one_scene_is_one_scene_however_it_is_written(drawn):
    name, kind, scale, descending, steps = drawn
    nm = np.linspace(420.0, 660.0, len(steps))
    plain = kind[0] == "f" and scale == 1
    stored = (steps / 100 if plain else steps * (scale // 100)).astype(kind)
    turn = slice(None, None, -1 if descending else 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        reference = folder / "reference.npy", Options(bands_axis=0)
        np.save(reference[0], steps / 100)
        expected = read_scene(reference[0], Options(wavelengths_nm=nm, bands_axis=0))
        (folder / "written").mkdir()
        options = Options(**WRITERS[name](folder / "written/a", stored[turn], scale, nm[turn]))
        (path,) = (p for p in (folder / "written").iterdir() if p.suffix != ".raw")
        scene = read_scene(path, options)
        np.testing.assert_allclose(scene.wavelengths_nm, nm, rtol=1e-12)
        np.testing.assert_array_equal(scene.cube(), expected.cube())
        if name != "netcdf":  # micrometres are rounded
            assert scene.pixel_hash() == expected.pixel_hash()
        scores = score_files((path, options), reference, 4, ["matlab"])
        assert scores.values["matlab"]["psnr"] > 140
        itself = score_files((path, options), (path, options), 4, ["matlab"])
        assert itself.values["matlab"]["psnr"] == np.inf


def test_emit_is_read_with_its_bands_and_gaps(tmp_path):
    path = tmp_path / "EMIT_L2A_RFL.nc"
    netcdf(path, (STEPS / 100).astype("f4"), 1, NM)
    with h5py.File(path, "r+") as file:
        cube = file["reflectance"][()]
        cube[:2], cube[..., 3] = -9999, -0.01
        file["reflectance"][...] = cube
        file["reflectance"].attrs["_FillValue"] = np.float32(-9999)
        good = np.ones(BANDS, np.uint8)
        good[3] = 0
        file["sensor_band_parameters/good_wavelengths"] = good
        file["location/lat"] = np.zeros((HEIGHT, WIDTH))
    for read in (read_scene, read_image):
        image = read(path)
        np.testing.assert_allclose(image.wavelengths_nm, np.delete(NM, 3))
        assert image.valid_HW.sum() == (HEIGHT - 2) * WIDTH
        assert not image.valid_HW[:2].any()
    values = read_image(path).values_SHW[:, 2:]
    np.testing.assert_allclose(values, np.delete(STEPS, 3, 0)[:, 2:] / 100, rtol=1e-6)


def test_prisma_is_read_with_its_range_and_bands_in_use(tmp_path):
    path = tmp_path / "PRS_L2D.he5"
    low, high = 0.02, 0.9
    quantity = low + STEPS / 100 * (high - low)
    with h5py.File(path, "w") as file:
        fields = file.create_group("HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields")
        for sensor in ("VNIR", "SWIR"):
            counts = np.rint(STEPS / 100 * 65535).astype(np.uint16)[::-1]
            counts = np.concatenate([np.zeros((2, HEIGHT, WIDTH), np.uint16), counts])
            fields[f"{sensor}_Cube"] = counts.transpose(1, 0, 2)
            name = sensor.capitalize()
            nm = [0.0, 0.0, *NM[::-1].tolist()]
            file.attrs.update({f"List_Cw_{name}": np.float32(nm), f"L2Scale{name}Min": low})
            file.attrs[f"L2Scale{name}Max"] = high
    with pytest.raises(UserError, match="VNIR_Cube"):
        read_scene(path)
    key = "HDFEOS/SWATHS/PRS_L2D_HCO/Data Fields/VNIR_Cube"
    scene = read_scene(path, Options(key=key))
    np.testing.assert_allclose(scene.cube(), quantity, atol=1e-5)
    np.testing.assert_allclose(scene.wavelengths_nm, NM, rtol=1e-6)
    assert any("2 are declared bad" in note for note in scene.notes)


def test_bands_of_one_file_each_keep_their_place_and_lie_on_one_grid(tmp_path):
    place = rasterio.Affine(10, 0, 5e5, 0, -10, 4.1e6)
    profile = {"count": 1, "height": HEIGHT, "width": WIDTH, "dtype": "int16", "nodata": -1}
    profile |= {"crs": "EPSG:32633"}
    stored = STEPS.astype("i2") * 100
    stored[2, 0, 0] = -1
    for i, band in enumerate(stored, 1):
        with rasterio.open(tmp_path / f"B{i}.tif", "w", transform=place, **profile) as file:
            file.write(band, 1)
            file.update_tags(1, wavelength=str(NM[i - 1]), wavelength_units="nm")
            file.scales = [1e-4]
    image = read_image(tmp_path)
    np.testing.assert_allclose(image.wavelengths_nm, NM)
    assert (image.array.crs, image.array.transform) == ("EPSG:32633", tuple(place)[:6])
    assert (~image.valid_HW).sum() == 1
    np.testing.assert_allclose(image.values_SHW[1], STEPS[1] / 100 * image.valid_HW)
    moved = place @ rasterio.Affine.translation(1, 0)
    with rasterio.open(tmp_path / "B5.tif", "w", transform=moved, **profile) as file:
        file.write(stored[4], 1)
    with pytest.raises(UserError, match=r"B5\.tif: found transform .* lie on one grid"):
        open_file(tmp_path)
