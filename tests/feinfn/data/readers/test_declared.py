"""Facts that files declare: wavelengths in many places, order, bad bands, names of data files."""

import subprocess
import sys

import h5py
import numpy as np
import pytest
from test_readers import CUBE, envi, plain_h5, tiff

from feinfn.data.images import read_image
from feinfn.data.readers.array import Options
from feinfn.data.scene import read_scene
from feinfn.errors import UserError
from feinfn.files import write_hdf5

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
rasterio = pytest.importorskip("rasterio", reason="ENVI and GeoTIFF are read through rasterio")
WHOLE = Options(full_scale=65535)
THREE = CUBE[:3]
NM = [450.0, 550.0, 650.0]


def test_envi_without_a_unit_is_nm_or_asked(tmp_path):
    path = envi(tmp_path, THREE, "wavelength = {450, 550, 650}\n")
    np.testing.assert_array_equal(read_scene(path, WHOLE).wavelengths_nm, NM)
    for unit in ("", "wavelength units = Unknown\n"):
        path = envi(tmp_path, THREE, f"{unit}wavelength = {{0.45, 0.55, 0.65}}\n")
        for read in (read_scene, read_image):
            with pytest.raises(UserError, match=r"0\.45 to 0\.65 without a unit, .*Micrometers"):
                read(path, WHOLE)
            told = read(path, Options(full_scale=65535, wavelengths_nm=NM))
            np.testing.assert_array_equal(told.wavelengths_nm, NM)
    path = envi(tmp_path, THREE, "wavelength units = Micrometers\nwavelength = {.45, .55, .65}\n")
    np.testing.assert_allclose(read_scene(path, WHOLE).wavelengths_nm, NM)


PLACES = {
    "descriptions": lambda file: setattr(file, "descriptions", [f"Band {x:g} nm" for x in NM]),
    "micrometres": lambda file: setattr(file, "descriptions", [f"{x / 1000} µm" for x in NM]),
    "imagery": lambda file: [
        file.update_tags(i, ns="IMAGERY", CENTRAL_WAVELENGTH_UM=str(x / 1000))
        for i, x in enumerate(NM, 1)
    ],
    "tags of bands": lambda file: [
        file.update_tags(i, WAVELENGTH=str(x), WAVELENGTH_UNIT="nm") for i, x in enumerate(NM, 1)
    ],
    "a list": lambda file: file.update_tags(wavelengths="{450, 550, 650}", wavelength_units="nm"),
    "as GDAL's ENVI": lambda file: file.update_tags(
        **{f"Band_{i}": f"{x:.6f} Nanometers" for i, x in enumerate(NM, 1)}
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_wavelengths_are_found_in_every_place(place, tmp_path):
    path = tiff(tmp_path, THREE)
    with rasterio.open(path, "r+") as file:
        PLACES[place](file)
    np.testing.assert_allclose(read_scene(path, WHOLE).wavelengths_nm, NM)
    np.testing.assert_allclose(read_image(path, WHOLE).wavelengths_nm, NM)


def test_names_without_units_are_no_wavelengths(tmp_path):
    path = tiff(tmp_path, THREE)
    with rasterio.open(path, "r+") as file:
        file.descriptions = ["B2", "B3", "B4"]
    assert read_scene(path, WHOLE).wavelengths_nm is None


def test_descending_bands_are_turned_and_the_same_scene(tmp_path):
    up = read_scene(envi(tmp_path, THREE, "wavelength = {450, 550, 650}\n"), WHOLE)
    scales = "data gain values = {1, 1, 0.5}\n"
    down = envi(tmp_path, THREE[::-1], "wavelength = {650, 550, 450}\n")
    scene = read_scene(down, WHOLE)
    assert scene.pixel_hash() == up.pixel_hash()
    assert scene.notes == ("Bands descend by wavelength in the file, and are turned.",)
    scaled = envi(tmp_path, THREE[::-1], f"wavelength = {{650, 550, 450}}\n{scales}")
    image = read_image(scaled)
    np.testing.assert_array_equal(image.values_SHW, THREE * np.array([0.5, 1, 1])[:, None, None])


def test_bands_declared_bad_are_left_out(tmp_path):
    nm = np.linspace(400, 700, 31)
    listed = ", ".join(f"{x:g}" for x in nm)
    good = np.isin(np.arange(31), (3, 4, 5, 9), invert=True)
    flags = ", ".join(map(str, good.astype(int)))
    path = envi(tmp_path, CUBE, f"wavelength = {{{listed}}}\nbbl = {{{flags}}}\n")
    for scene in (
        read_scene(path, WHOLE),
        read_scene(path, Options(full_scale=65535, wavelengths_nm=nm)),
        read_scene(path, Options(full_scale=65535, wavelengths_nm=nm[good])),
    ):
        np.testing.assert_array_equal(scene.raw_SHW, CUBE[good])
        np.testing.assert_array_equal(scene.wavelengths_nm, nm[good])
        assert scene.notes == ("Of 31 bands, 4 are declared bad and left out: 4-6, 10.",)
    with pytest.raises(UserError, match=r"found 2 marks of bad bands \(bbl\) for 3 bands"):
        read_scene(envi(tmp_path, THREE, "bbl = {1, 0}\n"), WHOLE)
    with pytest.raises(UserError, match="all 3 bands declared bad"):
        read_scene(envi(tmp_path, THREE, "bbl = {0, 0, 0}\n"), WHOLE)


def test_the_only_other_file_of_a_header_is_its_data(tmp_path):
    path = envi(tmp_path)
    (tmp_path / "toys.png").touch()
    data = path.with_suffix(".img").rename(tmp_path / "toys.hyspex")
    np.testing.assert_array_equal(read_scene(path, WHOLE).raw_SHW, CUBE)
    (tmp_path / "toys.cube").write_bytes(data.read_bytes())
    with pytest.raises(UserError, match=r"of its name, toys\.cube, toys\.hyspex, expected one"):
        read_scene(path, WHOLE)
    np.testing.assert_array_equal(read_scene(data, WHOLE).raw_SHW, CUBE)


def test_what_hdf5_says_about_an_array_reaches_the_message(tmp_path):
    path = tmp_path / "a.h5"
    write_hdf5(path, lambda file: file.create_dataset("GT", data=CUBE))
    content = path.read_bytes()
    assert content[8] == 0, "the first format of HDF5, which every version reads"
    start = content.index(b"\x08\x00\x18\x00")
    assert content[start + 8] == 3, "the version of the layout message"
    path.write_bytes(content[: start + 8] + b"\x09" + content[start + 9 :])
    with pytest.raises(UserError, match="bad version number for layout message"):
        read_scene(path, WHOLE)


def test_a_file_that_another_program_writes_is_named_so(tmp_path):
    path = plain_h5(tmp_path)
    code = f"import h5py; f = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        with pytest.raises(UserError, match="held open for writing by another program"):
            read_scene(path, WHOLE)
        writer.communicate("\n")
    assert read_scene(path, WHOLE).raw_SHW.shape == CUBE.shape


def test_links_that_lead_nowhere_are_passed_over(tmp_path):
    path = plain_h5(tmp_path)
    with h5py.File(path, "r+") as file:
        file["soft"] = h5py.SoftLink("/absent")
    assert read_scene(path, WHOLE).raw_SHW.shape == CUBE.shape


@pytest.mark.parametrize("listed", ["450, 550", "450, 550, 650, 750"])
def test_envi_with_another_number_of_wavelengths_is_refused(listed, tmp_path):
    path = envi(tmp_path, THREE, f"wavelength units = Nanometers\nwavelength = {{{listed}}}\n")
    found = len(listed.split(","))
    with pytest.raises(UserError, match=rf"found {found} wavelengths for 3 bands, expected one a"):
        read_scene(path, WHOLE)


def test_the_full_scale_of_8_bits_is_said(tmp_path):
    np.save(tmp_path / "a.npy", THREE.astype(np.uint8))
    taken = "8 bits of which the file says no scale: 255 is taken as 1, or say --full-scale."
    for read in (read_scene, read_image):
        assert read(tmp_path / "a.npy", Options(bands_axis=0)).notes == (taken,)
        assert read(tmp_path / "a.npy", Options(bands_axis=0, full_scale=255)).notes == ()
