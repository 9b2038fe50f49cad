"""Damaged files of every layout end in a scene or a `UserError`, soon and in little memory."""

import tracemalloc
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_readers import FLOATS, envi, mat5, mat73, npy, npz, plain_h5, prepared, read_any, tiff

from feinfn.data.readers.formats import open_file, scenes_in
from feinfn.data.scene import Scene
from feinfn.errors import UserError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
CUBE = FLOATS[:3, :6, :5]
LAST = np.moveaxis(CUBE, 0, -1)
PEAK_BYTES = 100_000_000


def images(root: Path) -> Path:
    (root / "toys").mkdir()
    for number, band in enumerate(CUBE):
        Image.fromarray((band * 65535).astype(np.uint16)).save(root / "toys" / f"toys_{number}.png")
    return root / "toys"


def packed_h5(root: Path) -> Path:
    with h5py.File(root / "toys.h5", "w", libver="latest") as file:
        file.create_dataset("GT", data=CUBE, chunks=(1, 3, 5), compression="gzip", shuffle=True)
        file["wavelength_nm"] = [400, 500, 600]
    return root / "toys.h5"


def groups(root: Path) -> Path:
    with h5py.File(root / "toys.h5", "w") as file:
        file["group/a"], file["group/wavelength_nm"] = CUBE, [400, 500, 600]
        file["group/again"] = file["group"]
    return root / "toys.h5"


SMALL = {
    "images": images,
    "hdf5": lambda root: plain_h5(root, CUBE),
    "packed_h5": packed_h5,
    "prepared": lambda root: prepared(
        root,
        GT=CUBE[None, :, :4, :4],
        LRHSI=CUBE[None, :, :2, :2],
        RGB=CUBE[None, :2, :4, :4],
        HSI_up=CUBE[None, :, :4, :4],
    ),
    "mat": lambda root: mat5(root, a=LAST, lines=np.ones((1, 1)), cols=np.ones((1, 1))),
    "mat_plain": lambda root: mat5(root, compress=False, ref=LAST, c={"s": [1, "x"]}),
    "mat_struct": lambda root: mat5(root, info={"n": 1, "a": LAST, "deeper": {"b": LAST}}),
    "mat_plain_struct": lambda root: mat5(root, compress=False, info={"a": LAST, "b": LAST}),
    "mat73": lambda root: mat73(root, a=LAST),
    "groups": groups,
    "pair": lambda root: mat5(root, compress=False, HSim=LAST, MSim=LAST),
    "npy": lambda root: npy(root, CUBE),
    "npz": lambda root: npz(root, CUBE),
    "envi": lambda root: envi(root, (CUBE * 9).astype(np.uint16), "wavelength = {1, 2, 3}\n"),
    "tiff": lambda root: tiff(root, CUBE),
}


@cache
def whole(layout: str) -> tuple[str, dict[str, bytes]]:
    """Return a layout's path and files, relative to its folder."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        path = SMALL[layout](root)
        files = {str(f.relative_to(root)): f.read_bytes() for f in root.rglob("*") if f.is_file()}
        return str(path.relative_to(root)), dict(sorted(files.items()))


def check(layout: str, content: dict[str, bytes]) -> None:
    """Read the files in every way there is; anything but a scene or `UserError` is raised."""
    with TemporaryDirectory() as folder:
        for name, data in content.items():
            (Path(folder) / name).parent.mkdir(exist_ok=True)
            (Path(folder) / name).write_bytes(data)
        tracemalloc.start()
        path = Path(folder) / whole(layout)[0]
        axis = {"bands_axis": 0} if layout in ("npy", "npz") else {}
        with suppress(UserError):
            assert open_file(path).arrays is not None
        try:
            scene: Scene | None = read_any(path, **axis)
        except UserError as error:
            scene, told = None, str(error)
        assert scene is not None or Path(folder).name in told
        for key in (None, "a", "0", "info.a", "group/a"):
            with suppress(UserError):
                assert isinstance(read_any(path, key=key, **axis), Scene)
        with suppress(UserError):
            assert scenes_in(path if path.is_dir() else path.parent)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < PEAK_BYTES


@st.composite
def damaged(draw: st.DrawFn, layout: str) -> dict[str, bytes]:
    """Draw a layout's files with bytes changed, cut out, repeated or replaced altogether."""
    files = dict(whole(layout)[1])
    name = draw(st.sampled_from(list(files)))
    data = bytearray(files[name])
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["set", "set", "ones", "cut", "end", "repeat", "all"])):
            case "set":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "ones":
                data[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, b"\0\0\0\x80", b"\x7f" * 4]))
            case "cut":
                del data[at : at + draw(st.integers(1, 64))]
            case "end":
                del data[at:]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 64))]
            case "all":
                keep = draw(st.integers(0, 16))
                data = data[:keep] + draw(st.binary(max_size=600))
    return files | {name: bytes(data)}


@pytest.mark.parametrize("layout", SMALL)
def test_damaged_files_end_in_a_scene_or_a_user_error(layout):
    @settings(max_examples=40, deadline=20_000, derandomize=True, database=None)
    @given(damaged(layout))
    def every(content: dict[str, bytes]) -> None:
        check(layout, content)

    check(layout, whole(layout)[1])
    every()


def test_a_png_chunk_that_claims_a_hundred_megabytes_is_not_believed():
    files = dict(whole("images")[1])
    files["toys/toys_0.png"] = files["toys/toys_0.png"].replace(b"\0\0\0MIDAT", b"\6\0\0MIDAT")
    assert files != whole("images")[1]
    check("images", files)
