"""MATLAB files, v5 and v7.3 through HDF5, always seen in MATLAB's order of axes."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from feinfn.data.readers import hdf5, mat5
from feinfn.data.readers.common import DEFAULTS, Array, Options, bands_first, choose, head, reading
from feinfn.data.scene import Scene
from feinfn.errors import UserError

_SIZES = (("lines", "cols"), ("nRow", "nCol"), ("rows", "cols"), ("nr", "nc"))


def mat_arrays(path: Path) -> dict[str, Array]:
    """Return the real arrays of either version: name -> shape in MATLAB's order, and type."""
    if not mat5.is_mat5(head(path)):
        with hdf5.opened(path) as file:
            found = hdf5.arrays_in(file)
        return {key: Array(a.shape[::-1], a.dtype) for key, a in found.items()}
    listed = mat5.variables(path)
    return {key: Array(found.shape, str(found.dtype)) for key, found in listed.items()}


def load_mat(path: Path, key: str) -> np.ndarray:
    """Read one of the file's arrays in MATLAB's order and type."""
    if not mat5.is_mat5(head(path)):
        with hdf5.opened(path) as file:
            return hdf5.load(path, file, key).T
    return mat5.load(path, key, mat5.variables(path)[key])


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
    """Return rows and columns from the options, or from the file's scalars, or zeros."""
    if options.rows is not None and options.cols is not None:
        return options.rows, options.cols
    for names in _SIZES:
        if all(name in arrays and set(arrays[name].shape) == {1} for name in names):
            rows, cols = (load_mat(path, name).item() for name in names)
            with reading(path, "an image's size"):
                return int(rows), int(cols)
    return 0, 0
