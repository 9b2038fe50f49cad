"""HDF5 scenes: plain files of one scene, and prepared files of training pairs.

Plain: `GT` [S, H, W] and `wavelength_nm` [S]. Prepared, as this line of papers uses them: `GT`,
`LRHSI`, `RGB` and `HSI_up`, each [N, C, H, W].

Legend: N images, C channels, S bands, M MSI bands, h w LR size, H W HR size.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
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
from feinfn.data.scene import Scene, check_finite
from feinfn.errors import UserError

_SIGNATURE = b"\x89HDF\r\n\x1a\n"


@contextmanager
def open_hdf5(
    path: Path, remedy: str = "look at the spelling, or name a file that exists"
) -> Iterator[Any]:
    """Open an HDF5 file for reading; any error within the block becomes a `UserError`."""
    read_head(path, remedy)
    with reading(path, "HDF5"), h5py.File(path, "r") as file:
        yield file


def is_hdf5(start: bytes) -> bool:
    """Return True if a file's first bytes are HDF5, with or without MATLAB's header before it."""
    return _SIGNATURE in (start[:8], start[512:520])


def is_matlab(start: bytes, file: Any) -> bool:
    """Return True for a MATLAB v7.3 file, by header or datasets; its axes are reversed."""
    return start.startswith(b"MATLAB 7.3") or any(
        "MATLAB_class" in x.attrs for _, x in _items(file)
    )


def hdf5_arrays(path: Path) -> dict[str, Array]:
    """Return the real arrays at the top level of an HDF5 file: name -> shape and type."""
    with open_hdf5(path) as file:
        return arrays_in(file)


def arrays_in(file: Any) -> dict[str, Array]:
    """Return the real arrays at the top level of an open file, axes as HDF5 shows them."""
    return {
        key: Array(item.shape, str(item.dtype))
        for key, item in _items(file)
        if item.dtype.kind in "uif"
        and item.shape
        and item.attrs.get("MATLAB_class") not in (b"char", b"cell", b"struct")
    }


def _items(file: Any) -> Iterator[tuple[str, Any]]:
    """Yield name and dataset; links to other files are ignored."""
    for key in file:
        outside = file.get(key, getclass=True, getlink=True) is h5py.ExternalLink
        if not outside and isinstance(file.get(key), h5py.Dataset):
            yield key, file[key]


def load_dataset(path: Path, file: Any, key: str, index: int | None = None) -> np.ndarray:
    """Read an array, or one entry of its first axis, after checking that its size is plausible."""
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

    Raises `UserError` for a file that is missing or truncated, for missing keys, a wrong shape, and
    values outside [0, 1].
    """
    with open_hdf5(path, "data.source must hold one <scene>.h5 per name") as file:
        missing = [key for key in ("GT", "wavelength_nm") if key not in file]
        if missing:
            raise UserError(
                f"{path}: found keys {sorted(file)}, expected GT [bands, rows, columns] and "
                f"wavelength_nm [bands]; {missing[0]} is missing"
            )
    return read_hdf5(path)


def read_hdf5(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read `GT` [S, H, W], or another array by key, with `wavelength_nm` if the file has it.

    Without `GT` and a key, the only 3-D array is read. The order of its axes must be clear or
    given, otherwise `UserError` is raised.
    """
    with open_hdf5(path) as file:
        arrays = arrays_in(file)
        plain = options.key in (None, "GT") and "GT" in arrays
        key = "GT" if plain else choose_array(path, arrays, options.key)
        raw = load_dataset(path, file, key)
        wavelengths_nm = options.wavelengths_nm
        if wavelengths_nm is None and "wavelength_nm" in file:
            wavelengths_nm = load_dataset(path, file, "wavelength_nm")
    if not plain or options.bands_axis is not None:
        raw = bands_first(
            path, raw, options.bands_axis, None if wavelengths_nm is None else len(wavelengths_nm)
        )
    return options.scene(raw, path, wavelengths_nm=wavelengths_nm)


KEYS = ("GT", "LRHSI", "RGB", "HSI_up")
"""Arrays of a prepared file."""


class StoredPair(NamedTuple):
    """The inputs of one image as stored, float32: nothing is simulated, clipped or reordered."""

    msi_MHW: np.ndarray
    lms_SHW: np.ndarray
    lr_hsi_Shw: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared file; images are read one by one, so it may be larger than memory."""

    path: Path
    count: int
    """Number N of images or patches."""
    shape_SHW: tuple[int, int, int]
    msi_bands: int
    ratio: int
    """HR pixels per LR pixel along each axis."""
    msi_order: str | None
    """Channels of the MSI, "BGR" in the CAVE files and "RGB" in Harvard's; None if unknown."""

    def scene(self, index: int, options: Options = DEFAULTS) -> Scene:
        """Read image `index` of `GT`; wavelengths come from the options, if at all."""
        raw = self._read("GT", index)
        return options.scene(raw, self.path, name=f"{self.path.stem}_{index:05d}")

    def pair(self, index: int) -> StoredPair:
        """Read the stored inputs of image `index`; raise `UserError` for NaN."""
        msi, lms, lr = (self._read(key, index) for key in ("RGB", "HSI_up", "LRHSI"))
        for key, values in (("RGB", msi), ("HSI_up", lms), ("LRHSI", lr)):
            check_finite(values, f"{self.path}: {key}[{index}]")
        return StoredPair(msi, lms, lr)

    def _read(self, key: str, index: int) -> np.ndarray:
        if not 0 <= index < self.count:
            raise UserError(
                f"{self.path}: found index {index}, expected 0 to {self.count - 1}; the file holds "
                f"{self.count} images"
            )
        with open_hdf5(self.path) as file:
            return load_dataset(self.path, file, key, index).astype(np.float32)


def read_prepared(path: Path, *, msi_order: str | None = None) -> Prepared:
    """Check the keys, shapes and types of a prepared file and return it without reading images.

    `msi_order` names the channels of the stored MSI, for comparison with a protocol. Raises
    `UserError` for missing keys and for shapes that do not fit together, such as those of another
    order of axes.
    """
    with open_hdf5(path) as file:
        arrays = arrays_in(file)
    shapes = {key: array.shape for key, array in arrays.items()}
    if not set(KEYS) <= arrays.keys():
        raise UserError(
            f"{path}: found {shapes}, expected {', '.join(KEYS)}, each [N, C, H, W]; prepare it "
            "again"
        )
    gt, lr, msi, lms = (shapes[key] for key in KEYS)
    fits = {len(shape) for shape in (gt, lr, msi, lms)} == {4} and 0 not in gt + lr + msi
    fits = fits and gt == lms and gt[:2] == lr[:2] and (gt[0], *gt[2:]) == (msi[0], *msi[2:])
    fits = fits and gt[2] % lr[2] == gt[3] % lr[3] == 0 and gt[2] // lr[2] == gt[3] // lr[3]
    if not fits:
        raise UserError(
            f"{path}: found {shapes}, expected N,C,H,W arrays: HSI_up as GT, RGB of GT's size and "
            "LRHSI a whole number of times smaller; transpose them, or prepare the file again"
        )
    if any(not arrays[key].dtype.startswith("float") for key in KEYS):
        raise UserError(
            f"{path}: found {', '.join(f'{key} {arrays[key].dtype}' for key in KEYS)}, expected "
            "floats in [0, 1]; divide by the full scale and prepare the file again"
        )
    if msi_order is not None and len(msi_order) != msi[1]:
        raise UserError(
            f"{path}: found msi_order {msi_order!r} for {msi[1]} MSI bands, expected one letter a "
            "band, as BGR"
        )
    return Prepared(
        path=path,
        count=gt[0],
        shape_SHW=(gt[1], gt[2], gt[3]),
        msi_bands=msi[1],
        ratio=gt[2] // lr[2],
        msi_order=msi_order,
    )


def read_prepared_image(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read the only image of a prepared file, or the one whose index is the key."""
    prepared = read_prepared(path)
    if (options.key is None and prepared.count > 1) or not (options.key or "0").isdecimal():
        raise UserError(
            f"{path}: found a prepared file of {prepared.count} images and key {options.key}, "
            f"expected an index; say key=0 to key={prepared.count - 1}"
        )
    return prepared.scene(int(options.key or 0), options)
