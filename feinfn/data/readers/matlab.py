"""MATLAB files, v5 and v7.3 (HDF5), with axes always in MATLAB's order.

v5 files are parsed here because scipy's compiled reader crashes on some damaged ones. Source:
"MAT-File Format", The MathWorks, chapter 1 (level 5).

Besides general variables this module reads Harvard scenes (`ref` [H, W, 31], 420 to 720 nm, and
perhaps `lbl` and `calib`) and real pairs (a measured HSI and a measured MSI of the same ground).

Legend: S bands, M MSI bands, h w HSI size, H W image size, of pairs the MSI's.
"""

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feinfn.data.readers import hdf5
from feinfn.data.readers.common import (
    DEFAULTS,
    Array,
    Options,
    bands_first,
    check_size,
    choose_array,
    read_head,
    reading,
)
from feinfn.data.scene import Scene
from feinfn.errors import UserError

_SIZE_NAMES = (("lines", "cols"), ("nRow", "nCol"), ("rows", "cols"), ("nr", "nc"))


def mat_arrays(path: Path) -> dict[str, Array]:
    """Return the real arrays of either version: name -> shape in MATLAB's order, and type."""
    if not is_mat5(read_head(path)):
        with hdf5.open_hdf5(path) as file:
            arrays = hdf5.arrays_in(file)
        return {key: Array(a.shape[::-1], a.dtype) for key, a in arrays.items()}
    return {key: Array(v.shape, str(v.dtype)) for key, v in variables(path).items()}


def load_mat(path: Path, key: str) -> np.ndarray:
    """Read one array of a file in MATLAB's order and type."""
    if not is_mat5(read_head(path)):
        with hdf5.open_hdf5(path) as file:
            return hdf5.load_dataset(path, file, key).T
    return load_variable(path, key, variables(path)[key])


def read_mat(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read a variable [H, W, S] (other orders with `bands_axis`), or a matrix [S, H W].

    A matrix holds pixels column by column; rows and columns come from the options or from scalars
    in the file (`lines` and `cols`, `nRow` and `nCol`). Raises `UserError` if more than one
    variable could be the scene.
    """
    arrays = mat_arrays(path)
    rows, cols = _image_size(path, arrays, options)
    matrices = [k for k, a in arrays.items() if len(a.shape) == 2 and a.shape[1] == rows * cols]
    key = choose_array(path, arrays, options.key, matrices)
    raw = load_mat(path, key)
    if raw.ndim != 2:
        axis = -1 if options.bands_axis is None else options.bands_axis
        return options.scene(bands_first(path, raw, axis, None), path)
    if raw.shape[1] != rows * cols or rows < 1:
        raise UserError(
            f"{path}: found {key} of shape {raw.shape} and an image of {rows} rows and {cols} "
            "columns, expected [bands, rows * columns]; say rows and cols, or transpose "
            "the matrix"
        )
    return options.scene(raw.reshape((-1, rows, cols), order="F"), path)


def _image_size(path: Path, arrays: Mapping[str, Array], options: Options) -> tuple[int, int]:
    """Return rows and columns from the options, else from the file's scalars, else zeros."""
    if options.rows is not None and options.cols is not None:
        return options.rows, options.cols
    for names in _SIZE_NAMES:
        if all(name in arrays and set(arrays[name].shape) == {1} for name in names):
            rows, cols = (load_mat(path, name).item() for name in names)
            with reading(path, "an image's size"):
                return int(rows), int(cols)
    return 0, 0


_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}

_CLASSES |= {14: "i8", 15: "u8"}

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}

_STORED |= {12: "i8", 13: "u8"}

_MATRIX, _COMPRESSED, _COMPLEX = 14, 15, 0x0800

_HEAD_BYTES = 4096  # more than flags, dimensions and name of an array need


def is_mat5(start: bytes) -> bool:
    """Return True for a v5 file (MATLAB's -v6 and -v7, Octave, scipy), by its first bytes."""
    return start[124:128] in (b"\x00\x01IM", b"\x01\x00MI")


@dataclass(frozen=True)
class Variable:
    """A real array of a v5 file; its numbers are not read yet."""

    shape: tuple[int, ...]
    dtype: np.dtype
    """Type that MATLAB shows; the file may store small whole numbers in fewer bytes."""
    at: int
    """Offset of its element in the file, in bytes."""


def variables(path: Path) -> dict[str, Variable]:
    """Return the real numeric arrays of a file by name; raise `UserError` if it is damaged."""
    with reading(path, "MATLAB v5"):
        return dict(_variables(path))


def _variables(path: Path) -> Iterator[tuple[str, Variable]]:
    end = path.stat().st_size
    with path.open("rb") as file:
        order = "<" if file.read(128)[126:] == b"IM" else ">"
        at = 128
        while at < end:
            file.seek(at)
            kind, size = struct.unpack(f"{order}II", file.read(8))
            if at + 8 + size > end:
                raise ValueError(f"an element of {size} bytes at byte {at} ends after the file")
            body = file.read(min(size, _HEAD_BYTES))
            if kind == _COMPRESSED:
                body = zlib.decompressobj().decompress(body, _HEAD_BYTES)
                kind, body = struct.unpack(f"{order}I", body[:4])[0], body[8:]
            if kind == _MATRIX and body:
                name, shape, code, _ = _array_head(body, order)
                if code in _CLASSES:
                    yield name, Variable(shape, np.dtype(_CLASSES[code]), at)
            at += 8 + size


def _array_head(body: bytes, order: str) -> tuple[str, tuple[int, ...], int, int]:
    """Return name, shape and class (0 for complex) of an array, and the offset of its numbers."""
    _, flags, at = _element(body, 0, order)
    (word,) = struct.unpack(f"{order}I", flags[:4])
    _, sizes, at = _element(body, at, order)
    shape = tuple(np.frombuffer(sizes, f"{order}i4").tolist())
    _, name, at = _element(body, at, order)
    return name.decode("ascii"), shape, 0 if word & _COMPLEX else word & 0xFF, at


def _element(body: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Return type and bytes of the element at `at`, and the offset of the next one."""
    kind, size = struct.unpack_from(f"{order}II", body, at)
    if kind >> 16:  # up to four bytes are stored within the tag
        return kind & 0xFFFF, body[at + 4 : at + 4 + (kind >> 16)], at + 8
    return kind, body[at + 8 : at + 8 + size], at + 8 + size + -size % 8


def load_variable(path: Path, name: str, variable: Variable) -> np.ndarray:
    """Read a variable in MATLAB's order of axes, [rows, columns, ...], and type."""
    # MATLAB stores doubles that are small whole numbers in one byte each.
    itemsize = variable.dtype.itemsize
    check_size(path, name, variable.shape, itemsize, 8 * path.stat().st_size)
    with reading(path, "MATLAB v5"), path.open("rb") as file:
        order = "<" if file.read(128)[126:] == b"IM" else ">"
        file.seek(variable.at)
        kind, size = struct.unpack(f"{order}II", file.read(8))
        body = file.read(size)
        if kind == _COMPRESSED:
            limit = math.prod(variable.shape) * itemsize + _HEAD_BYTES
            stream = zlib.decompressobj()
            body = stream.decompress(body, limit)[8:]
            if not stream.eof:
                raise ValueError("the compressed array does not end where it should")
        stored, numbers, _ = _element(body, _array_head(body, order)[-1], order)
        array = np.frombuffer(numbers, order + _STORED[stored])
        return array.astype(variable.dtype).reshape(variable.shape, order="F")


WAVELENGTHS_NM = np.arange(420.0, 721.0, 10.0)


def read_harvard(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read `ref` unchanged; `lbl` (mask) and `calib` are reported in the notes, never applied.

    Values above 1 need `full_scale`. Raises `UserError` for another number of bands. Source:
    Chakrabarti and Zickler, "Statistics of real-world hyperspectral images", CVPR 2011.
    """
    arrays = mat_arrays(path)
    if "ref" not in arrays or arrays["ref"].shape[2:] != WAVELENGTHS_NM.shape:
        shown = {key: array.shape for key, array in arrays.items()}
        raise UserError(
            f"{path}: found {shown}, expected a Harvard scene, ref [rows, columns, 31]; name a "
            "variable with key to read the file as any other .mat"
        )
    raw = bands_first(path, load_mat(path, "ref"), -1, None)
    notes = tuple(
        f"The file also holds {key} {arrays[key].shape}; ref was taken as it is."
        for key in ("lbl", "calib")
        if key in arrays
    )
    return options.scene(raw, path, wavelengths_nm=WAVELENGTHS_NM, notes=notes)


HSI, MSI = "HSim", "MSim"


def read_pair(path: Path, options: Options = DEFAULTS, msi_key: str = MSI) -> Scene:
    """Read a .mat file with the HSI [h, w, S] (key, default `HSim`) and the MSI [H, W, M].

    Both are in units of one full scale. Raises `UserError` if a variable is missing or the MSI grid
    is not a whole number of times finer than the HSI grid.
    """
    arrays = mat_arrays(path)
    cubes = []
    for key in (options.key or HSI, msi_key):
        if key not in arrays or len(arrays[key].shape) != 3:
            shown = {name: array.shape for name, array in arrays.items()}
            raise UserError(
                f"{path}: found {shown}, expected {key} [rows, columns, bands]; name the HSI with "
                "key and the MSI with msi_key"
            )
        cubes.append(bands_first(path, load_mat(path, key), -1, None))
    hsi = options.scene(cubes[0], path)
    return join_pair(hsi, replace(options, wavelengths_nm=None).scene(cubes[1], path))


def join_pair(hsi: Scene, msi: Scene) -> Scene:
    """Return the HSI's scene with another scene as its MSI, each in its own full scale.

    Raises `UserError` if the grids do not fit.
    """
    (h, w), (rows, cols) = hsi.raw_SHW.shape[1:], msi.raw_SHW.shape[1:]
    if rows % h or cols % w or rows // h != cols // w:
        raise UserError(
            f"{msi.source}: found an MSI of {rows}x{cols} pixels for an HSI of {h}x{w}, expected "
            "the same whole number of MSI pixels per HSI pixel along both axes; the two do not "
            "belong together, or one was cropped: register and crop them first"
        )
    return replace(hsi, msi_MHW=msi.cube(), notes=hsi.notes + msi.notes)
