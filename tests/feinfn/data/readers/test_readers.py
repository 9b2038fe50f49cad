"""Readers: every layout gives the same scene, and what a layout cannot say must be told."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from feinfn.data.pairs import stored_pair
from feinfn.data.readers.array import Options
from feinfn.data.readers.formats import KINDS, open_file, read_prepared, scenes_in
from feinfn.data.scene import Scene, read_pair, read_scene, scene_of
from feinfn.errors import UserError


def read_any(path: Path, **told: object) -> Scene:
    """Read a scene; the full scale of uint16 is told if the file does not say it."""
    try:
        return read_scene(path, Options(**told))
    except UserError as error:
        if "type uint16 up to" not in str(error):
            raise
        return read_scene(path, Options(full_scale=65535, **told))


pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
rasterio = pytest.importorskip("rasterio", reason="ENVI and GeoTIFF are read through rasterio")
RNG = np.random.default_rng(0)
CUBE = RNG.integers(0, 65536, (31, 12, 10)).astype(np.uint16)
FLOATS = CUBE.astype(np.float32) / np.float32(65535)
CAVE_NM = np.arange(400.0, 701.0, 10.0)


def cave(root: Path, levels: int = 2, cube: np.ndarray = CUBE, name: str = "toys_ms") -> Path:
    folder = root / "/".join([name] * levels)
    folder.mkdir(parents=True)
    for number in RNG.permutation(len(cube)):  # file-system order must not matter
        Image.fromarray(cube[number]).save(folder / f"{name}_{number + 1:02}.png")
    (folder / "toys_RGB.bmp").write_bytes(b"BM")
    (folder / "Thumbs.db").write_bytes(b"thumbs")
    return root / name


def plain_h5(root: Path, cube: np.ndarray = CUBE) -> Path:
    with h5py.File(root / "toys.h5", "w") as file:
        file["GT"], file["wavelength_nm"] = cube, np.linspace(400, 700, len(cube))
    return root / "toys.h5"


def prepared(root: Path, **change: np.ndarray) -> Path:
    gt = RNG.random((3, 5, 8, 8), np.float32)
    keys = {"GT": gt, "LRHSI": gt[..., ::4, ::4], "RGB": gt[:, :3], "HSI_up": gt * 0.5, **change}
    with h5py.File(root / "train.h5", "w") as file:
        for key, array in keys.items():
            file[key] = array
    return root / "train.h5"


def mat5(root: Path, compress: bool = True, **variables: object) -> Path:
    variables = variables or {"cube": np.moveaxis(CUBE, 0, -1)}
    scipy.io.savemat(root / "toys.mat", variables, do_compression=compress)
    return root / "toys.mat"


def mat73(root: Path, **variables: np.ndarray) -> Path:
    path = root / "toys73.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        for key, array in (variables or {"cube": np.moveaxis(CUBE, 0, -1)}).items():
            file[key] = array.T
            file[key].attrs["MATLAB_class"] = np.bytes_(array.dtype.name)
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, written by a test".ljust(124) + b"\x00\x02IM")
    return path


def npy(root: Path, cube: np.ndarray = CUBE) -> Path:
    np.save(root / "toys.npy", cube)
    return root / "toys.npy"


def npz(root: Path, cube: np.ndarray = CUBE) -> Path:
    np.savez_compressed(root / "toys.npz", cube=cube, gt=np.zeros((12, 10), np.uint8))
    return root / "toys.npz"


def envi(root: Path, cube: np.ndarray = CUBE, more: str = "", order: str = "<") -> Path:
    cube.astype(cube.dtype.newbyteorder(order)).tofile(root / "toys.img")
    (root / "toys.hdr").write_text(
        f"ENVI\nsamples = {cube.shape[2]}\nlines = {cube.shape[1]}\nbands = {cube.shape[0]}\n"
        "header offset = 0\nfile type = ENVI Standard\ninterleave = bsq\n"
        f"data type = {2 if cube.dtype.kind == 'i' else 12}\n"
        f"byte order = {int(order == '>')}\n{more}"
    )
    return root / "toys.hdr"


def tiff(path: Path, cube: np.ndarray = CUBE) -> Path:
    path = path / "toys.tif" if path.is_dir() else path
    shape = dict(zip(("count", "height", "width"), cube.shape, strict=True))
    with rasterio.open(path, "w", driver="GTiff", dtype=cube.dtype, **shape) as file:
        file.write(cube)
    return path


def sequence(root: Path) -> Path:
    (root / "bands").mkdir()
    for number, band in enumerate(CUBE):
        tiff(root / "bands" / f"b{number}.tif", band[None])
    return root / "bands"


WRITERS: dict[str, Callable[[Path], Path]] = {
    "cave": cave,
    "hdf5": plain_h5,
    "prepared": lambda root: prepared(root, **_one_image()),
    "mat": mat5,
    "mat73": mat73,
    "harvard": lambda root: mat5(root, ref=np.moveaxis(FLOATS, 0, -1), calib=np.ones((1, 31))),
    "pair": lambda root: mat5(root, HSim=FLOATS[:7, :6, :5].T, MSim=FLOATS[:3].T),
    "numpy": npy,
    "npz": npz,
    "envi": envi,
    "geotiff": tiff,
    "sequence": sequence,
}


def _one_image() -> dict[str, np.ndarray]:
    gt = FLOATS[None, :, :8, :8]
    return {"GT": gt, "LRHSI": gt[..., ::4, ::4], "RGB": gt[:, :3], "HSI_up": gt}


@pytest.mark.parametrize("layout", [n for n in WRITERS if n not in ("prepared", "pair")])
def test_every_layout_of_the_same_pixels_is_the_same_scene(layout, tmp_path):
    scene = read_any(WRITERS[layout](tmp_path), wavelengths_nm=CAVE_NM)
    expected = read_any(plain_h5(tmp_path))
    np.testing.assert_array_equal(scene.cube(), FLOATS)
    assert scene.pixel_hash() == expected.pixel_hash()


@pytest.mark.parametrize("layout", WRITERS)
def test_kind_is_told_by_content_and_described(layout, tmp_path):
    kind = {"mat73": "mat", "npz": "numpy"}.get(layout, layout)
    path = WRITERS[layout](tmp_path)
    assert open_file(path).kind == kind
    if path.is_file() and kind != "envi":
        assert open_file(path.rename(tmp_path / "without_suffix")).kind == kind
        path = tmp_path / "without_suffix"
    assert KINDS[kind]
    assert open_file(path).arrays
    assert isinstance(read_any(path, **({"bands_axis": 0} if kind == "numpy" else {})), Scene)


def test_all_kinds_are_tested():
    assert set(KINDS) <= set(WRITERS)


@pytest.mark.parametrize("levels", [1, 2])
def test_cave_is_found_in_both_nestings(levels, tmp_path):
    path = cave(tmp_path, levels)
    assert scenes_in(tmp_path) == {"toys_ms": path}
    for place in {path, path / "toys_ms"} if levels == 2 else {path}:
        scene = read_any(place)
        assert (scene.name, scene.bit_depth, scene.notes) == ("toys_ms", 16, ())
        np.testing.assert_array_equal(scene.raw_SHW, CUBE)
        np.testing.assert_array_equal(scene.wavelengths_nm, CAVE_NM)
        assert set(scenes_in(place)) == {"toys_ms"}


@pytest.mark.parametrize("channels", [3, 4])
def test_eight_bit_grey_in_colour_is_brought_to_sixteen(channels, tmp_path):
    grey = (CUBE >> 8).astype(np.uint8)
    scene = read_any(cave(tmp_path, cube=np.repeat(grey[..., None], channels, -1)))
    np.testing.assert_array_equal(scene.cube(), grey.astype(np.float32) / np.float32(255))
    assert "257" in scene.notes[0]


def test_prepared_files_are_read_image_by_image(tmp_path):
    path = prepared(tmp_path)
    found = read_prepared(path)
    assert (found.count, found.shape_SHW, found.msi_bands, found.ratio) == (3, (5, 8, 8), 3, 4)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(scene_of(found.image(2)).raw_SHW, file["GT"][2])
        for stored, key in zip(
            stored_pair(found, 1)[0], ("RGB", "HSI_up", "LRHSI", "GT"), strict=True
        ):
            np.testing.assert_array_equal(stored, file[key][1])
    assert read_any(path, key="0", wavelengths_nm=range(1, 6)).wavelengths_nm[4] == 5
    assert read_any(path, key="2").pixel_hash() == scene_of(found.image(2)).pixel_hash()


def test_harvard_is_taken_as_it_is(tmp_path):
    ref = np.moveaxis(FLOATS, 0, -1) * 2
    path = mat5(tmp_path, ref=ref, lbl=np.ones((12, 10)))
    scene = read_any(path, full_scale=2)
    np.testing.assert_array_equal(scene.cube(), FLOATS)
    np.testing.assert_array_equal(scene.wavelengths_nm, np.arange(420.0, 721.0, 10.0))
    assert scene.notes == ("The file also holds lbl (12, 10); ref was taken as it is.",)
    with pytest.raises(UserError, match="with --full-scale"):
        read_any(path)
    assert read_any(path, key="ref", full_scale=2).wavelengths_nm is None


@pytest.mark.parametrize("write", [mat5, mat73])
def test_matrices_hold_pixels_column_by_column(write, tmp_path):
    matrix = CUBE.transpose(0, 2, 1).reshape(31, -1)
    one = np.ones((1, 1))
    path = write(tmp_path, Y=matrix, lines=12 * one, cols=10 * one)
    np.testing.assert_array_equal(read_any(path).raw_SHW, CUBE)
    path = write(tmp_path, Y=matrix)
    np.testing.assert_array_equal(read_any(path, key="Y", rows=12, cols=10).raw_SHW, CUBE)
    with pytest.raises(UserError, match="say rows and cols"):
        read_any(path, key="Y")


def test_whole_numbered_doubles_keep_their_type(tmp_path):
    scene = read_any(mat5(tmp_path, a=np.ones((4, 4, 3))))
    assert (scene.raw_SHW.dtype, scene.full_scale) == (np.float32, 1)


def test_order_of_axes_is_clear_or_told(tmp_path):
    path = npy(tmp_path, np.moveaxis(CUBE[:3], 0, -1))
    np.testing.assert_array_equal(read_any(path).raw_SHW, CUBE[:3])
    path = npy(tmp_path, np.moveaxis(CUBE, 0, -1))
    with pytest.raises(UserError, match=r"shape \(12, 10, 31\), .* bands_axis=2"):
        read_any(path)
    np.testing.assert_array_equal(read_any(path, bands_axis=2).raw_SHW, CUBE)
    np.testing.assert_array_equal(read_any(path, wavelengths_nm=CAVE_NM).raw_SHW, CUBE)
    path = mat5(tmp_path, a=CUBE)
    np.testing.assert_array_equal(read_any(path, bands_axis=0).raw_SHW, CUBE)


def test_a_real_pair_keeps_both_images(tmp_path):
    hsi, msi = np.moveaxis(FLOATS[:, :6, :5], 0, -1), np.moveaxis(FLOATS[:4], 0, -1)
    path = mat5(tmp_path, HSim=hsi * 1.5, MSim=msi * 1.5)
    scene = read_pair(open_file(path), Options(full_scale=1.5))
    np.testing.assert_allclose(scene.cube(), FLOATS[:, :6, :5], rtol=1e-6)
    np.testing.assert_allclose(scene.msi_MHW, FLOATS[:4], rtol=1e-6)


def test_envi_says_wavelengths_scale_and_byte_order(tmp_path):
    more = "wavelength units = {}\nwavelength = {{{}}}\nreflectance scale factor = 65535\n"
    for unit, numbers in (("Micrometers", ".4, .5, .6"), ("Nanometers", "400, 500, 600")):
        path = envi(tmp_path, CUBE[:3], more.format(unit, numbers), order=">")
        for name in (path, path.with_suffix(".img")):
            scene = read_any(name)
            np.testing.assert_array_equal(scene.cube(), FLOATS[:3])
            np.testing.assert_allclose(scene.wavelengths_nm, [400, 500, 600])
    assert scenes_in(tmp_path) == {"toys": path}
    with pytest.raises(UserError, match=r"units \['furlongs'\]"):
        read_any(envi(tmp_path, CUBE[:3], more.format("furlongs", "1, 2, 3")))


def test_numbered_scenes_are_no_sequence(tmp_path):
    for name in ("field1", "field2", "town1"):
        tiff(tmp_path / f"{name}.tif", CUBE[:3])
    (tmp_path / "town1.tif").write_bytes(b"II*\0 damaged")
    assert set(scenes_in(tmp_path)) == {"field1", "field2", "town1"}


def test_figures_beside_scenes_hide_nothing(tmp_path):
    plain_h5(tmp_path)
    (tmp_path / "figures").mkdir()
    for name in ("map_1.png", "plot_1.png", "figures/map_1.png", "figures/plot_1.png"):
        Image.fromarray(CUBE[0]).save(tmp_path / name)
    assert scenes_in(tmp_path) == {
        "toys": tmp_path / "toys.h5",
        "figures": tmp_path / "figures",
    }
    with pytest.raises(UserError, match="images of 2 scenes"):
        read_any(tmp_path / "figures")


def test_single_band_rasters_are_one_scene(tmp_path):
    path = sequence(tmp_path)
    assert scenes_in(path) == {"b": path}
    assert scenes_in(tmp_path) == {"b": path}


def test_signed_rasters_of_a_sequence_need_a_full_scale(tmp_path):
    for number in range(3):
        tiff(tmp_path / f"b{number}.tif", (CUBE[number : number + 1] // 2).astype(np.int16))
    scene = read_any(tmp_path, full_scale=32767)
    np.testing.assert_array_equal(scene.raw_SHW, CUBE[:3] // 2)
    with pytest.raises(UserError, match=r"found numbers of type int16 up to \d+, whose full scale"):
        read_any(tmp_path)


def test_two_scenes_of_one_name_are_refused(tmp_path):
    npy(tmp_path), npz(tmp_path)
    with pytest.raises(UserError, match="second scene named toys"):
        scenes_in(tmp_path)
