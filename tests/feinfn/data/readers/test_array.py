"""One reader from a path to an array: arrays inside groups and structs, and facts of the file."""

from pathlib import Path

import h5py
import numpy as np
import pytest
from test_readers import CUBE, FLOATS, envi, mat5, mat73, npz, plain_h5, tiff

from feinfn.data.images import read_image
from feinfn.data.readers.array import Options
from feinfn.data.readers.formats import open_file
from feinfn.data.scene import read_scene
from feinfn.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
NM = np.linspace(400, 700, 31)
LAST = np.moveaxis(CUBE, 0, -1)
WHOLE = Options(full_scale=65535)


def structs(root: Path, compress: bool = True) -> Path:
    info = {"date": "today", "cube": LAST, "deeper": {"mask": np.ones((12, 10)), NAME: NM}}
    return mat5(root, compress=compress, info=info, list=np.array([1, "a"], object), n=7)


NAME = "wavelength_nm"


def groups(root: Path) -> Path:
    with h5py.File(root / "toys.h5", "w") as file:
        group = file.create_group("group")
        group["data"], group[NAME], group["text"] = CUBE, NM, "text"
        group["again"] = file["group"]  # a circle
        file.create_group("empty")
    return root / "toys.h5"


def structs73(root: Path) -> Path:
    path = mat73(root, n=np.ones((1, 1)))
    with h5py.File(path, "r+") as file:
        group = file.create_group("info")
        group.attrs["MATLAB_class"] = np.bytes_("struct")
        group["cube"] = LAST.T
        file.create_group("#refs#")["a"] = LAST.T
    return path


def octave(root: Path) -> Path:
    """Write a matrix and a struct as Octave's `save -hdf5` does."""
    with h5py.File(root / "toys.h5", "w") as file:
        for name, value in (("HSI", LAST), ("n", np.ones((1, 1)))):
            group = file.create_group(name)
            group.attrs["OCTAVE_NEW_FORMAT"] = np.uint8(1)
            group["type"], group["value"] = "matrix", value.T
    return root / "toys.h5"


@pytest.mark.parametrize(
    ("write", "key", "others"),
    [
        (structs, "info.cube", ("/info/cube", "info/cube")),
        (lambda root: structs(root, compress=False), "info.cube", ()),
        (structs73, "info.cube", ("info/cube",)),
        (groups, "group/data", ("/group/data", "group.data")),
        (octave, "HSI/value", ("/HSI/value",)),
    ],
)
def test_arrays_inside_groups_and_structs_are_listed_named_and_read(write, key, others, tmp_path):
    path = write(tmp_path)
    array = open_file(path).arrays[key]
    assert (set(array.shape), array.dtype) == ({31, 12, 10}, np.uint16)
    group = key[: -len(key.split(".")[-1].split("/")[-1]) - 1]
    told = {"wavelengths_nm": NM, "full_scale": 65535}
    for match, given in (
        (rf"inside {group}: say --key {key}$", None),
        (f"say --key {key}$", group),
    ):
        with pytest.raises(UserError, match=match):
            read_scene(path, Options(key=given, **told))
    with pytest.raises(UserError, match=f"say --msi-key {key}$"):
        read_image(path, Options(prefix="msi-"))
    for name in (key, *others):
        np.testing.assert_array_equal(read_scene(path, Options(key=name, **told)).raw_SHW, CUBE)
        np.testing.assert_array_equal(
            read_image(path, Options(key=name, full_scale=65535)).values_SHW, CUBE / 65535
        )


def test_nested_structs_and_only_real_arrays_are_listed(tmp_path):
    for compress in (True, False):
        arrays = open_file(structs(tmp_path, compress)).arrays
        assert list(arrays) == ["info.cube", "info.deeper.mask", f"info.deeper.{NAME}", "n"]
        np.testing.assert_array_equal(arrays["info.deeper.mask"].load(()), np.ones((12, 10)))
    assert list(open_file(groups(tmp_path)).arrays) == ["group/data", f"group/{NAME}"]
    assert list(open_file(structs73(tmp_path)).arrays) == ["n", "info.cube"]


def test_damage_after_an_array_in_a_compressed_struct_is_found(tmp_path):
    path = structs(tmp_path)
    content = bytearray(path.read_bytes())
    content[900:908] = bytes(8)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"toys\.mat: cannot be read as MATLAB v5"):
        read_image(path, Options(key="info.cube"))


def test_band_centres_are_found_beside_the_array_and_keep_fingerprints(tmp_path):
    image = read_image(groups(tmp_path), Options(key="group/data", full_scale=65535))
    np.testing.assert_array_equal(image.wavelengths_nm, NM)
    scene = read_scene(groups(tmp_path), Options(key="group/data", full_scale=65535))
    assert scene.pixel_hash() == read_scene(plain_h5(tmp_path), WHOLE).pixel_hash()
    # In MATLAB's and NumPy's files they never were a part of a scene's identity.
    mat5(tmp_path, cube=LAST, wavelength_nm=NM)
    np.savez(tmp_path / "toys.npz", cube=CUBE, wavelength_nm=NM)
    for name in ("toys.mat", "toys.npz"):
        array = open_file(tmp_path / name).array(Options())
        np.testing.assert_array_equal(array.wavelengths_nm, NM)
        assert array.wavelengths_from == NAME
        assert read_scene(tmp_path / name, WHOLE).wavelengths_nm is None
    three = read_image(mat5(tmp_path, msi=LAST[..., :3], wavelength_nm=NM), WHOLE)
    assert three.wavelengths_nm is None


def test_axes_follow_the_content_and_not_the_suffix(tmp_path):
    for write in (mat5, mat73, plain_h5, npz):
        path = write(tmp_path)
        for suffix in (".mat", ".h5", ".npy", ""):
            path = path.rename(path.with_suffix(suffix))
            np.testing.assert_array_equal(read_image(path, WHOLE).values_SHW, CUBE / 65535)


def test_rasters_say_scale_nodata_bad_bands_and_place(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    more = "bbl = {1, 0, 1}\nband names = {a, b, c}\ndata ignore value = 9\n"
    array = open_file(envi(tmp_path, CUBE[:3], more)).array()
    assert (array.bad_bands, array.band_names, array.nodata) == ((1,), ("a", "b", "c"), 9)
    place = rasterio.Affine(30, 0, 5e5, 0, -30, 4e6)
    profile = {"count": 3, "height": 12, "width": 10, "dtype": "uint16", "nodata": 7}
    path = tmp_path / "a.tif"
    with rasterio.open(path, "w", "GTiff", crs="EPSG:32633", transform=place, **profile) as file:
        file.write(CUBE[:3])
        file.scales, file.offsets = (0.5, 0.5, 2), (1, 2, 3)
        file.colorinterp = [rasterio.enums.ColorInterp[c] for c in ("red", "green", "blue")]
    array = open_file(path).array()
    assert (array.scale, array.offset) == ((0.5, 0.5, 2), (1, 2, 3))
    assert (array.nodata, array.crs) == (7, "EPSG:32633")
    assert array.transform == tuple(place)[:6]
    assert array.colours == ("red", "green", "blue")


@pytest.mark.parametrize("how", ["one scale", "a scale a band", "offset"])
def test_declared_scales_and_offsets_are_used_and_said(how, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    quantity = np.rint(CUBE[:3] / 65535 * 8000) / 10000
    scales = [1e-4, 5e-5, 1e-4] if how == "a scale a band" else [1e-4] * 3
    offset = -0.1 if how == "offset" else 0.0
    stored = np.rint((quantity - offset) / np.array(scales)[:, None, None]).astype(np.uint16)
    path = tmp_path / "a.tif"
    profile = {"count": 3, "height": 12, "width": 10, "dtype": "uint16"}
    with rasterio.open(path, "w", "GTiff", **profile) as file:
        file.write(stored)
        file.scales, file.offsets = scales, [offset] * 3
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["GT"] = stored
        file["GT"].attrs.update(scale_factor=np.float32(scales), add_offset=np.float32(offset))
    gains = f"data gain values = {{{', '.join(map(str, scales))}}}\n"
    gains += f"data offset values = {{{offset}, {offset}, {offset}}}\n"
    for file in (path, tmp_path / "a.h5", envi(tmp_path, stored, gains)):
        scene, image = read_scene(file), read_image(file)
        np.testing.assert_allclose(scene.cube(), quantity, rtol=0, atol=1e-7)
        np.testing.assert_allclose(image.values_SHW, quantity, rtol=0, atol=1e-7)
        assert "The file declares scale" in image.notes[0]
        if how == "one scale":
            assert (scene.full_scale, scene.raw_SHW.dtype) == (10000, np.uint16)
        told = read_image(file, Options(full_scale=20000))
        np.testing.assert_allclose(told.values_SHW, stored / 20000)
        assert "replaces the file's scale" in told.notes[0]


def test_hdf5_says_scale_offset_and_fill_value(tmp_path):
    path = plain_h5(tmp_path)
    with h5py.File(path, "r+") as file:
        file["GT"].attrs.update(scale_factor=[0.1], add_offset=2, _FillValue=np.uint16(9))
        file[NAME].attrs["_FillValue"] = "none"
    arrays = open_file(path).arrays
    assert (arrays["GT"].scale, arrays["GT"].offset, arrays["GT"].nodata) == ((0.1,), (2,), 9)
    assert arrays[NAME].nodata is None


@pytest.mark.parametrize("write", [mat5, mat73, plain_h5, npz, tiff])
def test_windows_equal_the_whole(write, tmp_path):
    array = open_file(write(tmp_path)).array(default_axis=0)
    assert (array.shape, array.axes) == (CUBE.shape, "SHW")
    for index in ((), (3,), (slice(2, 5), slice(1, 4)), (0, slice(None), slice(3, 9))):
        np.testing.assert_array_equal(array.load(index), CUBE[index])
    raw = next(iter(open_file(array.path).arrays.values()))
    whole = raw.load(())
    np.testing.assert_array_equal(raw.load((1, slice(2, 4))), whole[1, 2:4])


def test_a_matrix_that_states_its_size_is_an_image_too(tmp_path):
    matrix = FLOATS.transpose(0, 2, 1).reshape(31, -1)
    path = mat5(tmp_path, Y=matrix, lines=12, cols=10)
    np.testing.assert_array_equal(read_image(path).values_SHW, FLOATS)
