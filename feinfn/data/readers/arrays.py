"""NumPy files: .npy, and .npz by key or with a single 3-D array."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

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

NPY, NPZ = b"\x93NUMPY", b"PK\x03\x04"


def numpy_arrays(path: Path) -> dict[str, Array]:
    """Return name -> shape and type; the array of a .npy file is named after the file."""
    with _members(path) as members:
        headers = {key: _header(file) for key, file, _ in members}
    return {key: Array(shape, str(dtype)) for key, (shape, dtype) in headers.items()}


def read_numpy(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read an array [S, H, W] or [H, W, S]; give `bands_axis` if the shape is ambiguous."""
    raw = load_numpy(path, choose_array(path, numpy_arrays(path), options.key))
    wavelengths_nm = options.wavelengths_nm
    raw = bands_first(
        path, raw, options.bands_axis, None if wavelengths_nm is None else len(wavelengths_nm)
    )
    return options.scene(raw, path)


def load_numpy(path: Path, key: str) -> np.ndarray:
    """Read one array after checking that its size is plausible; objects are never unpickled."""
    with _members(path) as members:
        file, stored = next((file, stored) for name, file, stored in members if name == key)
        shape, dtype = _header(file)
        check_size(path, key, shape, dtype.itemsize, stored)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)


@contextmanager
def _members(path: Path) -> Iterator[Iterator[tuple[str, IO[bytes], int]]]:
    """Yield (name, open array file, bytes on disk)."""
    start, size = read_head(path), path.stat().st_size
    with reading(path, "NumPy"):
        if start.startswith(NPZ):
            with zipfile.ZipFile(path) as archive:
                names = [n for n in archive.namelist() if n.endswith(".npy")]
                yield ((n[: -len(".npy")], archive.open(n), size) for n in names)
        else:
            with path.open("rb") as file:
                yield iter([(path.stem, file, size)])


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], Any]:
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    shape, _, dtype = read[np.lib.format.read_magic(file)](file)
    return shape, dtype
