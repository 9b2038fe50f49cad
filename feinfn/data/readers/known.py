"""Published sets: facts about files that do not state them, and the layout of prepared pairs."""

from collections.abc import Callable, Mapping
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


@dataclass(frozen=True, kw_only=True)
class KnownSet:
    """A published file; wavelengths are nominal, from the sensor's regular grid."""

    about: str
    keys: tuple[str, ...]
    """Names under which files hold the cube."""
    shape_SHW: tuple[int, int, int]
    full_scale: float
    centres_nm: Callable[[np.ndarray], np.ndarray]
    """Nominal band centres by band number, counted from 1."""
    kept: tuple[tuple[int, int], ...]
    """Ranges of the sensor's band numbers in the file, ends included."""
    citation: str
    notes: tuple[str, ...] = ()
    msi_key: str | None = None

    def wavelengths_nm(self) -> np.ndarray:
        """Return the nominal band centres [S]."""
        numbers = np.concatenate([np.arange(low, high + 1) for low, high in self.kept])
        return self.centres_nm(numbers.astype(np.float64))


def _even(low: float, high: float, bands: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda number: low + (high - low) * (number - 1) / (bands - 1)


def _hyperion(number: np.ndarray) -> np.ndarray:
    return np.where(number <= 70, 355.59 + 10.17 * (number - 1), 851.92 + 10.09 * (number - 71))


KNOWN = {
    "indian_pines": KnownSet(
        about="AVIRIS over farmland in Indiana, 200 of 220 bands",
        keys=("data", "indian_pines_corrected"),
        shape_SHW=(200, 145, 145),
        full_scale=10000,
        centres_nm=_even(400, 2500, 220),
        kept=((1, 103), (109, 149), (164, 219)),
        citation="Baumgardner, Biehl, Landgrebe (Purdue), doi:10.4231/R7RX991C; CC BY 3.0",
        notes=("Numbers are scaled radiance up to 9604; 10000 as full scale is a convention.",),
    ),
    "jasper": KnownSet(
        about="AVIRIS over Jasper Ridge, 100x100 pixels, 198 of 224 bands",
        keys=("Y",),
        shape_SHW=(198, 100, 100),
        full_scale=10000,
        centres_nm=_even(380, 2500, 224),
        kept=((4, 107), (113, 153), (167, 219)),
        citation="NASA/JPL AVIRIS; crop of Zhu et al., ISPRS Journal 2014; terms not stated",
        notes=(
            "Numbers go up to 5437; 10000 as full scale takes them for reflectance x 10000, while "
            "unmixing papers divide by the maximum.",
        ),
    ),
    "pavia_centre": KnownSet(
        about="ROSIS over Pavia, crop of 100x100 pixels, 102 bands",
        keys=("data",),
        shape_SHW=(102, 100, 100),
        full_scale=1,
        centres_nm=_even(430, 860, 102),
        kept=((1, 102),),
        citation="Gamba, University of Pavia; terms not stated",
        notes=("The crop was scaled to [0, 1] by whoever made it.",),
    ),
    "paris": KnownSet(
        about="Hyperion (128 bands) and ALI (9 bands) over Paris on one grid, no reference",
        keys=("HSim",),
        shape_SHW=(128, 72, 72),
        full_scale=1.5,
        centres_nm=_hyperion,
        kept=((8, 56), (83, 96), (102, 118), (135, 162), (194, 196), (202, 214), (216, 219)),
        citation="Simoes et al., IEEE TGRS 2015 (HySure); EO-1 data of NASA/USGS",
        notes=("Values go up to 1.45; 1.5 as full scale of both images is a convention.",),
        msi_key="MSim",
    ),
}
