"""Numbers of an array as a quantity: the user's facts, else those that the file declares.

Legend: S bands, H rows, W columns.
"""

from dataclasses import dataclass

import numpy as np

from feinfn.data.readers.array import Array, Options
from feinfn.errors import UserError

USUAL = {1023: "10 bits", 2047: "11 bits", 4095: "12 bits", 10000: "reflectance x 10000"}
USUAL |= {16383: "14 bits", 32767: "15 bits", 65535: "16 bits"}
"""Full scales in use, and their names."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of an array and their full scale."""

    raw_SHW: np.ndarray
    """As stored, or floats in units of 1 if the file declares an offset or scales that differ."""
    full_scale: float
    """The number that means 1."""
    notes: tuple[str, ...] = ()
    """Facts of the file that were used, one sentence each."""


def numbers_of(array: Array, options: Options) -> Numbers:
    """Read an array [S, H, W] in the user's full scale, else in the scale that the file declares.

    Raises `UserError` if neither says what integers mean.
    """
    where, raw = f"{array.path}: {array.key}", array.load(())
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    scales, offsets = _per_band(array, array.scale, 1.0), _per_band(array, array.offset, 0.0)
    declared = (scales != 1).any() or (offsets != 0).any()
    option = f"--{options.prefix}full-scale"
    stated = array.full_scale if options.full_scale is None else options.full_scale
    notes = array.notes
    if stated is not None and declared:
        notes += (f"The full scale {stated:g} replaces the file's {_shown(scales, offsets)}.",)
    elif declared:
        notes += (f"The file declares {_shown(scales, offsets)}, which is applied.",)
        if len(set(scales)) == 1 and scales[0] > 0 and not offsets.any():
            stated = _inverse(scales[0])
        else:
            raw = raw * scales[:, None, None] + offsets[:, None, None]
            stated = 1.0
    return Numbers(raw, full_scale_of(raw, stated, where, option), notes)


def _per_band(array: Array, numbers: tuple[float, ...], default: float) -> np.ndarray:
    """Return one number a band; raise `UserError` for another count."""
    numbers = numbers or (default,)
    if len(numbers) not in (1, array.shape[0]):
        raise UserError(
            f"{array.path}: found {len(numbers)} scales or offsets for {array.shape[0]} bands, "
            "expected one, or one a band; correct the file, or say the full scale"
        )
    return np.broadcast_to(np.asarray(numbers, dtype=np.float64), array.shape[:1])


def _shown(scales: np.ndarray, offsets: np.ndarray) -> str:
    """Return scales and offsets in words."""
    words = []
    for name, numbers in (("scale", scales), ("offset", offsets)):
        low, high = numbers.min(), numbers.max()
        words.append(f"{name} {low:g}" + ("" if low == high else f" to {high:g}"))
    return " and ".join(words)


def _inverse(scale: float) -> float:
    """Return 1 / scale, a whole number if the scale is its inverse in 32 bits."""
    whole = round(1 / scale)
    return float(whole) if whole and np.float32(1 / whole) == np.float32(scale) else 1 / scale


def full_scale_of(
    raw: np.ndarray, stated: float | None, where: str, option: str = "--full-scale"
) -> float:
    """Return the stored number that means 1: the stated one, else 255 of uint8 and 1 of floats.

    Raises `UserError` that begins with `where` for numbers that are not real, for a stated scale
    that is not > 0 or far above floats in [0, 1], and for other integers without a stated scale.
    """
    whole = np.issubdtype(raw.dtype, np.integer)
    if not whole and not np.issubdtype(raw.dtype, np.floating):
        raise UserError(f"{where}: found numbers of type {raw.dtype}, expected real numbers")
    if stated is None:
        if raw.dtype == np.uint8 or not whole:
            return 255.0 if whole else 1.0
        high = int(raw.max(initial=0))
        usual = next((f" ({why}: {n}?)" for n, why in USUAL.items() if high <= n), "")
        raise UserError(
            f"{where}: found numbers of type {raw.dtype} up to {high}, whose full scale is not "
            f"known{usual}, expected to be told which stored number means 1; say it with {option} "
            "(of a folder in a study: prepare it first, with that option)"
        )
    if not 0 < stated < np.inf:
        raise UserError(f"{where}: found full scale {stated:g}, expected a number > 0")
    if not whole and stated > 100 and 0 < (high := raw.max(initial=0)) <= 2:
        raise UserError(
            f"{where}: found floats up to {high:g} and full scale {stated:g}, expected numbers of "
            f"that scale; leave {option} out"
        )
    return float(stated)


def check_finite(values_SHW: np.ndarray, source: str) -> None:
    """Raise `UserError` with the number of NaN and inf values and the place of the first one."""
    bad = ~np.isfinite(values_SHW)
    if bad.any():
        band, row, column = np.unravel_index(bad.argmax(), bad.shape)
        raise UserError(
            f"{source}: found {bad.sum()} NaN or inf values of {bad.size}, the first in band "
            f"{band}, row {row}, column {column} (counted from 0), expected numbers; fill them, or "
            "cut them off"
        )
