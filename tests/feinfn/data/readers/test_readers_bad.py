"""Bad input to every reader: the error names the file, what was found and what to do."""

import os
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from test_readers import (
    CUBE,
    FLOATS,
    WRITERS,
    cave,
    envi,
    mat5,
    mat73,
    npy,
    npz,
    plain_h5,
    read_any,
    sequence,
    tiff,
)
from test_readers import prepared as prepared_h5

from feinfn.data.images import read_image
from feinfn.data.pairs import stored_pair
from feinfn.data.readers import array, geo
from feinfn.data.readers.formats import open_file, read_prepared, scenes_in
from feinfn.data.scene import read_pair
from feinfn.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
FILES = [n for n in WRITERS if n not in ("cave", "sequence")]


def refused(path: Path, match: str, **told: object) -> None:
    with pytest.raises(UserError, match=match) as caught:
        read_any(path, **told)
    assert path.stem in str(caught.value)


@pytest.mark.parametrize("layout", WRITERS)
def test_truncated_files_are_named(layout, tmp_path):
    path = WRITERS[layout](tmp_path)
    victim = geo.envi_data(path) if layout == "envi" else path
    victim = sorted(path.rglob("*[0-9].*"))[5] if path.is_dir() else victim
    content = victim.read_bytes()
    for part in (0.05, 0.5, 0.9):
        victim.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(UserError) as caught:
            read_any(path, bands_axis=0 if layout in ("numpy", "npz") else None)
        assert victim.stem in str(caught.value)


@pytest.mark.parametrize("layout", FILES)
def test_missing_files_folders_and_forbidden_files_are_named(layout, tmp_path, monkeypatch):
    path = WRITERS[layout](tmp_path)
    absent = path.with_name(f"absent{path.suffix}")
    refused(absent, "no such file")
    absent.mkdir()
    refused(absent, "folder without numbered images")

    def forbid(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    # Root may read everything, so the refusal is simulated.
    monkeypatch.setattr(Path, "open", forbid)
    refused(path, "no permission to read")


@pytest.mark.parametrize("layout", ["cave", "sequence"])
def test_forbidden_folders_are_named(layout, tmp_path, monkeypatch):
    path = WRITERS[layout](tmp_path)

    def forbid(self: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", forbid)
    refused(path, "no permission to read")


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mat")
    refused(tmp_path / "pipe.mat", "no such file")


BAD_VALUES = [("nan", np.nan, "NaN or inf"), ("negative", -0.5, "from -0.5"), ("large", 7, "to 7")]


@pytest.mark.parametrize(("value", "message"), [v[1:] for v in BAD_VALUES])
@pytest.mark.parametrize("layout", ["hdf5", "prepared", "mat", "mat73", "harvard", "pair", "numpy"])
def test_bad_values_are_named(layout, value, message, tmp_path):
    cube = FLOATS.copy()
    cube[0, 1, 1] = value
    last = np.moveaxis(cube, 0, -1)
    few = cube[None, :, :8, :8]
    path = {
        "hdf5": lambda: plain_h5(tmp_path, cube),
        "prepared": lambda: prepared_h5(
            tmp_path, GT=few, LRHSI=few[..., ::4, ::4], RGB=few[:, :3], HSI_up=few
        ),
        "mat": lambda: mat5(tmp_path, a=last),
        "mat73": lambda: mat73(tmp_path, a=last),
        "harvard": lambda: mat5(tmp_path, ref=last),
        "pair": lambda: mat5(tmp_path, HSim=np.moveaxis(FLOATS, 0, -1), MSim=last),
        "numpy": lambda: npy(tmp_path, cube),
    }[layout]()
    refused(path, message, bands_axis=0 if layout == "numpy" else None)


def test_bad_values_of_rasters_are_named(tmp_path):
    signed = np.full((3, 8, 8), -9999, np.int16)
    refused(envi(tmp_path, signed), "from -9999", full_scale=10000)
    refused(tiff(tmp_path, signed), "type int16 up to 0, whose full scale is not known")
    refused(tiff(tmp_path, np.full((3, 8, 8), np.nan, np.float32)), "192 NaN")


def test_a_nan_in_the_stored_inputs_is_named(tmp_path):
    path = prepared_h5(tmp_path, LRHSI=np.full((3, 5, 2, 2), np.nan, np.float32))
    with pytest.raises(UserError, match=r"LRHSI\[1\]: found 20 NaN or inf values"):
        stored_pair(read_prepared(path), 1)


@pytest.mark.parametrize("layout", WRITERS)
@pytest.mark.parametrize("nm", [[400.0, 500.0], [*range(400, 430), 410], [*range(400, 430), 429]])
def test_wrong_shuffled_and_doubled_wavelengths_are_named(layout, nm, tmp_path):
    axis = {"numpy": 0, "npz": 0}.get(layout)
    message = "wavelengths for" if len(nm) == 2 or layout == "pair" else "ascending"
    refused(WRITERS[layout](tmp_path), message, wavelengths_nm=nm, bands_axis=axis)


def test_wavelengths_that_are_no_numbers_are_named(tmp_path):
    path = plain_h5(tmp_path)
    with h5py.File(path, "r+") as file:
        del file["wavelength_nm"]
        file["wavelength_nm"] = ["400 nm"] * 31
    refused(path, "found wavelength_nm of type object")


def test_links_to_other_files_are_not_followed(tmp_path):
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["GT"] = h5py.ExternalLink(str(plain_h5(tmp_path)), "GT")
    refused(tmp_path / "link.h5", "found no arrays")


def test_shuffled_bands_in_a_file_are_named(tmp_path):
    path = plain_h5(tmp_path)
    with h5py.File(path, "r+") as file:
        file["wavelength_nm"][3] = 700
    refused(path, "700 nm, which followed|shuffled")
    refused(envi(tmp_path, CUBE[:3], "wavelength = {500, 400, 600}\n"), "shuffled")


def test_missing_extra_and_doubled_bands_of_cave_are_numbered(tmp_path):
    path = cave(tmp_path)
    inner = path / path.name
    (inner / "toys_ms_07.png").rename(inner / "toys_ms_32.png")
    refused(path, r"missing: \[7\]; extra: \[32\]\), expected 1 to 31")
    (inner / "toys_ms_32.png").rename(inner / "toys_ms_8.png")
    refused(path, "band 8 twice")
    (inner / "toys_ms_8.png").rename(inner / "other_ms_07.png")
    refused(path, "images of 2 scenes")


def test_gaps_in_a_sequence_are_numbered_even_if_wide(tmp_path):
    path = sequence(tmp_path)
    (path / "b4.tif").unlink()
    refused(path, r"missing: \[4\]")
    (path / "b5.tif").rename(path / "b99999999999999.tif")
    refused(path, r"missing: \[4, 5, 31")


def test_cave_of_other_depth_size_and_colour_is_named(tmp_path):
    path = cave(tmp_path)
    victim = path / path.name / "toys_ms_05.png"
    for image, message in [
        (Image.fromarray(np.zeros((12, 10), np.uint8)), "found uint8 .* expected uint16"),
        (Image.fromarray(np.zeros((10, 12), np.uint16)), r"\(10, 12\), expected uint16 \(12, 10\)"),
        (Image.fromarray(np.eye(12, 30, dtype=np.uint8).reshape(12, 10, 3)), "R, G and B differ"),
        (Image.new("1", (10, 12)), "1 bits of PNG colour type 0"),
        (Image.new("P", (10, 12)), "colour type 3"),
    ]:
        image.save(victim)
        with pytest.raises(UserError, match=message) as caught:
            read_any(path)
        assert "toys_ms_05.png" in str(caught.value)
    victim.write_bytes(colour_png_of_16_bits())
    refused(path, "found 16 bits of PNG colour type 2")
    Image.new("L", (10, 12)).save(victim, format="bmp")
    refused(path, "expected PNG")


def colour_png_of_16_bits(width: int = 10, height: int = 12) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(6 * width)) * height)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"HSI_up": np.ones((3, 5, 8, 4), np.float32)}, "N,C,H,W"),
        ({"LRHSI": np.ones((3, 5, 3, 3), np.float32)}, "whole number of times smaller"),
        ({"LRHSI": np.ones((3, 5, 2, 4), np.float32)}, "whole number of times smaller"),
        ({"RGB": np.ones((2, 3, 8, 8), np.float32)}, "N,C,H,W"),
        ({"GT": np.ones((5, 8, 8), np.float32)}, "N,C,H,W"),
        ({"RGB": np.ones((3, 3, 8, 8), np.uint16)}, r"RGB .* uint16, expected floats"),
    ],
)
def test_inconsistent_prepared_files_are_named(change, message, tmp_path):
    refused(prepared_h5(tmp_path, **change), message)


def test_prepared_files_in_another_order_of_axes_are_named(tmp_path):
    last = np.random.default_rng(0).random((3, 8, 8, 5), np.float32)
    path = prepared_h5(tmp_path, GT=last, LRHSI=last[:, ::4, ::4], RGB=last[..., :3], HSI_up=last)
    refused(path, "transpose them")


def test_prepared_files_need_an_index_that_fits(tmp_path):
    path = prepared_h5(tmp_path)
    refused(path, "say key=0 to key=2")
    refused(path, "found index 3, expected 0 to 2", key="3")
    with pytest.raises(UserError, match="expected GT, LRHSI, RGB, HSI_up"):
        read_prepared(plain_h5(tmp_path))


def test_wrong_band_count_of_harvard_is_named(tmp_path):
    refused(mat5(tmp_path, ref=np.ones((8, 8, 30))), r"expected a Harvard scene.*31")


@pytest.mark.parametrize("size", [(5, 4), (12, 5), (24, 20)])
def test_mismatched_pairs_are_named(size, tmp_path):
    path = mat5(tmp_path, HSim=np.ones((*size, 5)), MSim=np.ones((12, 10, 3)))
    refused(path, "the same whole number of MSI pixels per HSI pixel")


def test_pairs_without_an_msi_are_named(tmp_path):
    with pytest.raises(UserError, match="expected MSim"):
        read_pair(open_file(mat5(tmp_path, HSim=np.ones((4, 4, 5)))))


@pytest.mark.parametrize("write", [mat5, mat73])
def test_ambiguous_unknown_and_empty_variables_are_named(write, tmp_path):
    path = write(tmp_path, a=np.ones((4, 4, 3)), b=np.ones((4, 4, 5)))
    refused(path, "exactly one array with three axes")
    refused(path, "expected c;", key="c")
    many = write(tmp_path, **{f"x{i}": np.ones((1, 2)) for i in range(12)})
    refused(many, r"x9 \(1, 2\) float64 and 2 more, expected" if write is mat5 else "and 2 more")
    refused(write(tmp_path, a=np.ones((4, 4))), "exactly one array with three axes")
    refused(write(tmp_path, a=np.ones((4, 0, 3))), "a of shape|found a")


def test_scenes_besides_a_cube_of_abundances_are_not_guessed(tmp_path):
    one = np.ones((1, 1))
    matrix, abundances = np.ones((7, 120)), np.ones((12, 10, 4))
    refused(mat5(tmp_path, Y=matrix, S=abundances, lines=12 * one, cols=10 * one), "exactly one")


def test_objects_are_never_unpickled(tmp_path):
    class Harm:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "harm",)

    np.save(tmp_path / "toys.npy", np.full((2, 2, 2), Harm(), object), allow_pickle=True)
    refused(tmp_path / "toys.npy", "Object arrays cannot be loaded", bands_axis=0)
    assert not (tmp_path / "harm").exists()


def test_claims_of_terabytes_are_refused_unread(tmp_path):
    path = npy(tmp_path)
    path.write_bytes(
        path.read_bytes().replace(b"(31, 12, 10), }        ", b"(31, 1200000, 100000), }")
    )
    refused(path, r"shape \(31, 1200000, 100000\)", bands_axis=0)
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        file.create_dataset("GT", (31, 10**6, 10**6), "u2", chunks=(1, 64, 64))
    refused(tmp_path / "huge.h5", "was never filled")
    with h5py.File(tmp_path / "empty.h5", "w") as file:
        file.create_dataset("GT", (31, 8, 8), "u2")
    refused(tmp_path / "empty.h5", "was never filled")
    image = cave(tmp_path) / "toys_ms" / "toys_ms_01.png"
    content = bytearray(image.read_bytes())
    content[16:24] = struct.pack(">II", 2**30, 2**30)
    image.write_bytes(content)
    refused(tmp_path / "toys_ms", "an image of shape")


@pytest.mark.parametrize("suffix", [".h5", ".mat", ".npy", ".npz", ".tif", ".hdr", ".img", ""])
def test_an_empty_file_is_called_so(suffix, tmp_path):
    path = tmp_path / f"scene{suffix}"
    path.touch()
    refused(path, "found an empty file, expected a scene")
    with pytest.raises(UserError, match="found an empty file"):
        read_image(path)


def test_an_empty_header_beside_a_scene_is_none(tmp_path):
    path = npy(tmp_path, FLOATS)
    path.with_suffix(".hdr").touch()
    assert geo.envi_header(path) is None


def test_unknown_content_is_refused_with_a_list_of_kinds(tmp_path):
    (tmp_path / "notes.h5").write_text("no scene at all")
    refused(tmp_path / "notes.h5", "starts with b'no scene'.*CAVE folder.*GeoTIFF")
    with pytest.raises(UserError, match="no such folder"):
        scenes_in(tmp_path / "absent")
    (tmp_path / "notes.h5").rename(tmp_path / "notes.txt")
    with pytest.raises(UserError, match="found no scenes"):
        scenes_in(tmp_path)


def test_an_envi_header_without_data_is_named(tmp_path):
    path = envi(tmp_path)
    path.with_suffix(".img").unlink()
    refused(path, "expected one data file toys")


def test_missing_libraries_are_named(tmp_path, monkeypatch):
    def absent(module: str) -> None:
        raise ImportError(module)

    monkeypatch.setattr(array.importlib, "import_module", absent)
    with pytest.raises(UserError, match=r"pip install 'mhiflab\[geo\]'"):
        read_any(tiff(tmp_path))
    with pytest.raises(UserError, match="pip install 'pillow'"):
        read_any(cave(tmp_path))


def test_npz_without_arrays_is_named(tmp_path):
    path = npz(tmp_path)
    refused(path, "expected nothing;", key="nothing")
