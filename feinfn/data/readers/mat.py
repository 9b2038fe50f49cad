"""MATLAB files, v5 through scipy and v7.3 through HDF5, always seen in MATLAB's order of axes."""

import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import scipy.io

from feinfn.data.readers import hdf5
from feinfn.data.readers.common import (
    DEFAULTS,
    Array,
    Options,
    bands_first,
    check_size,
    choose,
    head,
    reading,
)
from feinfn.data.scene import Scene
from feinfn.errors import UserError

_BYTES = {"double": 8, "single": 4, "int64": 8, "uint64": 8, "int32": 4, "uint32": 4}
_BYTES |= {"int16": 2, "uint16": 2, "int8": 1, "uint8": 1, "logical": 1}
_SIZES = (("lines", "cols"), ("nRow", "nCol"), ("rows", "cols"), ("nr", "nc"))


def is_mat5(start: bytes) -> bool:
    """Tell a v5 file (MATLAB's -v6 and -v7, Octave, scipy) by its first bytes."""
    # A zero among the first four bytes means v4, whose sizes nothing bounds.
    return start[124:128] in (b"\x00\x01IM", b"\x01\x00MI") and 0 not in start[:4]


def mat_arrays(path: Path) -> dict[str, Array]:
    """Return the real arrays of either version: name -> shape in MATLAB's order, and type."""
    if not is_mat5(head(path)):
        with hdf5.opened(path) as file:
            found = hdf5.arrays_in(file)
        return {key: Array(a.shape[::-1], a.dtype) for key, a in found.items()}
    with _opened(path) as file:
        listed = scipy.io.whosmat(file)
    return {key: Array(tuple(shape), kind) for key, shape, kind in listed if kind in _BYTES}


def load_mat(path: Path, key: str, arrays: Mapping[str, Array]) -> np.ndarray:
    """Read one of `arrays` (from `mat_arrays`) in MATLAB's order and type."""
    if not is_mat5(head(path)):
        with hdf5.opened(path) as file:
            return hdf5.load(path, file, key).T
    # MATLAB stores doubles that are small integers in one byte each.
    check_size(path, key, arrays[key].shape, _BYTES[arrays[key].dtype], 8 * path.stat().st_size)
    with _opened(path) as file:
        return scipy.io.loadmat(file, variable_names=[key], mat_dtype=True)[key]


@contextmanager
def _opened(path: Path) -> Iterator[mmap.mmap]:
    # A map gives at most what it has, where a file would allocate whatever a damaged tag claims.
    with (
        reading(path, "MATLAB v5"),
        path.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        yield mapped


def read_mat(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read a variable [H, W, S] (other orders with `bands_axis`), or a matrix [S, H W].

    A matrix holds pixels column by column; rows and columns come from the options or from the
    file's own scalars (`lines` and `cols`, `nRow` and `nCol`). Raises `UserError` where more than
    one variable could be the scene.
    """
    arrays = mat_arrays(path)
    rows, cols = _image_size(path, arrays, options)
    matrices = [k for k, a in arrays.items() if len(a.shape) == 2 and a.shape[1] == rows * cols]
    key = choose(path, arrays, options.key, matrices)
    raw = load_mat(path, key, arrays)
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
    """Return rows and columns from the options, or from the file's scalars, or zeros."""
    if options.rows is not None and options.cols is not None:
        return options.rows, options.cols
    for names in _SIZES:
        if all(name in arrays and set(arrays[name].shape) == {1} for name in names):
            rows, cols = (load_mat(path, name, arrays).item() for name in names)
            with reading(path, "an image's size"):
                return int(rows), int(cols)
    return 0, 0
