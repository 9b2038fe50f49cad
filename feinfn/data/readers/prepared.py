"""Prepared files of this field: `GT`, `LRHSI`, `RGB` and `HSI_up` in HDF5, each [N, C, H, W].

Legend: N images, C channels, S bands, M MSI bands, h w LR size, H W HR size.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feinfn.data.readers.array import Array
from feinfn.errors import UserError

KEYS = ("GT", "LRHSI", "RGB", "HSI_up")
"""Arrays of a prepared file."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A prepared file; images are read one by one, so it may be larger than memory."""

    path: Path
    """The HDF5 file."""
    arrays: Mapping[str, Array]
    """The arrays of `KEYS`, [N, C, H, W]."""
    count: int
    """Number N of images or patches."""
    shape_SHW: tuple[int, int, int]
    """Size of every image of `GT`."""
    msi_bands: int
    """Bands M of `RGB`."""
    ratio: int
    """HR pixels per LR pixel along each axis."""

    def image(self, index: int, key: str = "GT") -> Array:
        """Return image `index` of an array, [C, H, W] float32 as stored."""
        if not 0 <= index < self.count:
            raise UserError(
                f"{self.path}: found index {index}, expected 0 to {self.count - 1}; the file holds "
                f"{self.count} images"
            )
        stored = self.arrays[key]
        return replace(
            stored,
            key=f"{key}[{index}]",
            name=f"{self.path.stem}_{index:05d}",
            shape=stored.shape[1:],
            dtype=np.dtype(np.float32),
            axes="SHW",
            load=lambda window: stored.load((index, *window)).astype(np.float32),
        )


def check_prepared(path: Path, arrays: Mapping[str, Array]) -> Prepared:
    """Return a prepared file after checking the keys, shapes and types of its arrays.

    Raises `UserError` for missing keys and for shapes that do not fit together, such as those of
    another order of axes.
    """
    shown = ", ".join(map(str, arrays.values()))
    if not set(KEYS) <= arrays.keys():
        raise UserError(
            f"{path}: found {shown}, expected {', '.join(KEYS)}, each [N, C, H, W]; prepare it "
            "again"
        )
    gt, lr, msi, lms = (arrays[key].shape for key in KEYS)
    fits = {len(shape) for shape in (gt, lr, msi, lms)} == {4} and 0 not in gt + lr + msi
    fits = fits and gt == lms and gt[:2] == lr[:2] and (gt[0], *gt[2:]) == (msi[0], *msi[2:])
    fits = fits and gt[2] % lr[2] == gt[3] % lr[3] == 0 and gt[2] // lr[2] == gt[3] // lr[3]
    if not fits:
        raise UserError(
            f"{path}: found {shown}, expected N,C,H,W arrays: HSI_up as GT, RGB of GT's size and "
            "LRHSI a whole number of times smaller; transpose them, or prepare the file again"
        )
    if any(arrays[key].dtype.kind != "f" for key in KEYS):
        raise UserError(
            f"{path}: found {shown}, expected floats in [0, 1]; divide by the full scale and "
            "prepare the file again"
        )
    return Prepared(
        path=path,
        arrays={key: arrays[key] for key in KEYS},
        count=gt[0],
        shape_SHW=(gt[1], gt[2], gt[3]),
        msi_bands=msi[1],
        ratio=gt[2] // lr[2],
    )
