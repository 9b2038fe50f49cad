"""Prepared files of this line of papers: HDF5 with `GT`, `LRHSI`, `RGB` and `HSI_up`."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from feinfn.data.readers.common import DEFAULTS, Options
from feinfn.data.readers.hdf5 import arrays_in, load, opened
from feinfn.data.scene import Scene, check_finite
from feinfn.errors import UserError

KEYS = ("GT", "LRHSI", "RGB", "HSI_up")


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
    """Images or patches N."""
    shape_SHW: tuple[int, int, int]
    msi_bands: int
    ratio: int
    """HR pixels per LR pixel along each axis."""
    msi_order: str | None
    """Channels of the MSI, "BGR" in the CAVE files and "RGB" in Harvard's; None: not stated."""

    def scene(self, index: int, options: Options = DEFAULTS) -> Scene:
        """Read image `index` of `GT`; the file knows no wavelengths, the options may."""
        raw = self._read("GT", index)
        return options.scene(raw, self.path, name=f"{self.path.stem}_{index:05d}")

    def pair(self, index: int) -> StoredPair:
        """Read the stored inputs of image `index`; raises `UserError` for NaN."""
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
        with opened(self.path) as file:
            return load(self.path, file, key, index).astype(np.float32)


def read_prepared(path: Path, *, msi_order: str | None = None) -> Prepared:
    """Check a prepared file's keys and shapes, N,C,H,W floats, and return it unread.

    `msi_order` names the stored MSI's channels, for whoever compares with a protocol. Raises
    `UserError` for missing keys and for shapes that do not belong together, as those of files in
    another order of axes.
    """
    with opened(path) as file:
        arrays = arrays_in(file)
    found = {key: array.shape for key, array in arrays.items()}
    if not set(KEYS) <= arrays.keys():
        raise UserError(
            f"{path}: found {found}, expected {', '.join(KEYS)}, each [N, C, H, W]; prepare it "
            "again"
        )
    gt, lr, msi, lms = (found[key] for key in KEYS)
    fits = {len(shape) for shape in (gt, lr, msi, lms)} == {4} and 0 not in gt + lr + msi
    fits = fits and gt == lms and gt[:2] == lr[:2] and (gt[0], *gt[2:]) == (msi[0], *msi[2:])
    fits = fits and gt[2] % lr[2] == gt[3] % lr[3] == 0 and gt[2] // lr[2] == gt[3] // lr[3]
    if not fits:
        raise UserError(
            f"{path}: found {found}, expected N,C,H,W arrays: HSI_up as GT, RGB of GT's size and "
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


def read_one(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read the only image of a prepared file, or the one whose index is the key."""
    prepared = read_prepared(path)
    if (options.key is None and prepared.count > 1) or not (options.key or "0").isdecimal():
        raise UserError(
            f"{path}: found a prepared file of {prepared.count} images and key {options.key}, "
            f"expected an index; say key=0 to key={prepared.count - 1}"
        )
    return prepared.scene(int(options.key or 0), options)
