"""NumPy files: the array of a .npy file, and those of an .npz file by name."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from feinfn.data.readers.array import Array, Index, check_size, read_head, reading

NPY, NPZ = b"\x93NUMPY", b"PK\x03\x04"


def numpy_arrays(path: Path) -> dict[str, Array]:
    """Return the arrays by name; the array of a .npy file is named after the file."""
    with _members(path) as members:
        headers = {key: _header(file) for key, file, _ in members}
    return {
        key: Array(path=path, key=key, shape=shape, dtype=dtype, load=partial(_load, path, key))
        for key, (shape, dtype) in headers.items()
    }


def _load(path: Path, key: str, index: Index) -> np.ndarray:
    """Read one array after checking that its size is plausible; objects are never unpickled."""
    with _members(path) as members:
        file, stored = next((file, stored) for name, file, stored in members if name == key)
        shape, dtype = _header(file)
        check_size(path, key, shape, dtype.itemsize, stored)
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)[index]


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
