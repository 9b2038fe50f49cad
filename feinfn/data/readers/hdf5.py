"""Plain HDF5 scenes: `GT` [bands, rows, columns] and `wavelength_nm` [bands]."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

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

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextmanager
def opened(
    path: Path, remedy: str = "look at the spelling, or name a file that exists"
) -> Iterator[Any]:
    """Open an HDF5 file for reading; `UserError` for whatever goes wrong within."""
    head(path, remedy)
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        yield file


def is_hdf5(start: bytes) -> bool:
    """Tell HDF5 by a file's first bytes, with or without MATLAB's header before it."""
    return _SIGNATURE in (start[:8], start[512:520])


def is_matlab(start: bytes, file: Any) -> bool:
    """Tell a MATLAB v7.3 file, whose axes are reversed, by its header or its datasets."""
    return start.startswith(b"MATLAB 7.3") or any(
        "MATLAB_class" in x.attrs for _, x in _items(file)
    )


def hdf5_arrays(path: Path) -> dict[str, Array]:
    """Return the real arrays at the top of an HDF5 file, by path."""
    with opened(path) as file:
        return arrays_in(file)


def arrays_in(file: Any) -> dict[str, Array]:
    """Return the real arrays at the top of an HDF5 file, axes as HDF5 shows them."""
    return {
        key: Array(item.shape, str(item.dtype))
        for key, item in _items(file)
        if item.dtype.kind in "uif"
        and item.shape
        and item.attrs.get("MATLAB_class") not in (b"char", b"cell", b"struct")
    }


def _items(file: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and dataset; links to other files are not followed."""
    for key in file:
        outside = file.get(key, getclass=True, getlink=True) is h5py.ExternalLink
        if not outside and isinstance(file.get(key), h5py.Dataset):
            yield key, file[key]


def load(path: Path, file: Any, key: str, index: int | None = None) -> np.ndarray:
    """Read an array, or one entry of its first axis, once its size was found plausible."""
    dataset = file[key]
    if dataset.dtype.kind not in "uif" or not dataset.shape:
        raise UserError(
            f"{path}: found {key} of type {dataset.dtype} and shape {dataset.shape}, expected an "
            "array of real numbers; write it anew"
        )
    stored = path.stat().st_size if dataset.id.get_storage_size() else 0
    check_size(path, key, dataset.shape, dataset.dtype.itemsize, stored)
    check_size(path, f"{key}'s chunks", dataset.chunks or (1,), 1, stored)
    return dataset[()] if index is None else dataset[index]


def read_scene(path: Path) -> Scene:
    """Read and check one HDF5 scene.

    Raises `UserError` for a file that is missing, truncated, without the keys, of wrong shape, or
    with values outside [0, 1].
    """
    with opened(path, "data.source must hold one <scene>.h5 per name") as file:
        missing = [key for key in ("GT", "wavelength_nm") if key not in file]
        if missing:
            raise UserError(
                f"{path}: found keys {sorted(file)}, expected GT [bands, rows, columns] and "
                f"wavelength_nm [bands]; {missing[0]} is missing"
            )
    return read_hdf5(path)


def read_hdf5(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read `GT` [S, H, W], or another array by key, with `wavelength_nm` where it is there.

    Without key and `GT`, the only 3-D array is taken; the order of its axes must be clear or told.
    """
    with opened(path) as file:
        arrays = arrays_in(file)
        plain = options.key in (None, "GT") and "GT" in arrays
        key = "GT" if plain else choose(path, arrays, options.key)
        raw = load(path, file, key)
        given = options.wavelengths_nm
        if given is None and "wavelength_nm" in file:
            given = load(path, file, "wavelength_nm")
    if not plain or options.bands_axis is not None:
        raw = bands_first(path, raw, options.bands_axis, None if given is None else len(given))
    return options.scene(raw, path, wavelengths_nm=given)
