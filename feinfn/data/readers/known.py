"""Published sets: facts about files that do not state them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


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
