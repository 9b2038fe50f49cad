"""Numbers of an array as a quantity: the user's facts, else those that the file declares.

Legend: S bands, H rows, W columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from feinfn.data.readers.array import Array, Index, Options
from feinfn.errors import UserError

USUAL = {1023: "10 bits", 2047: "11 bits", 4095: "12 bits", 10000: "reflectance x 10000"}
USUAL |= {16383: "14 bits", 32767: "15 bits", 65535: "16 bits"}
"""Full scales in use, and their names."""


SHORTEST_NM, LONGEST_NM = 100.0, 3000.0
"""Numbers below are no wavelengths of light in nm; those above, without a unit, may be others."""


@dataclass(frozen=True)
class Numbers:
    """The numbers of an array and their full scale."""

    raw_SHW: np.ndarray
    """As stored, or floats in units of 1 if the file declares an offset or scales that differ; 0
    where there are no data."""
    full_scale: float
    """The number that means 1."""
    array: Array
    """The array as it was read: without bad bands, its bands ascending by wavelength."""
    wavelengths_nm: np.ndarray | None
    """Band centres in nm [S], the user's or the file's."""
    valid_HW: np.ndarray | None = None
    """False where a band has no data; None if every pixel has."""
    notes: tuple[str, ...] = ()
    """Facts of the file that were used, one sentence each."""


def numbers_of(array: Array, options: Options, ascending: bool = True) -> Numbers:
    """Read an array [S, H, W] with the user's facts, else with those that the file declares.

    Bad bands are left out, pixels without data are marked, and, if `ascending`, bands in descending
    order are turned. Raises `UserError` if neither user nor file says what integers mean.
    """
    notes = array.notes
    array = array if options.no_data is None else replace(array, nodata=options.no_data)
    told = options.wavelengths_nm
    nm = _wavelengths(array) if told is None else np.asarray(told)
    array, nm, why = _without_bad_bands(array, nm)
    array, nm, turned = _ascending(array, nm) if ascending else (array, nm, ())
    raw = array.load(())
    raw = raw.astype(raw.dtype.newbyteorder("="), copy=False)
    array, nm, raw, empty = _without_empty_bands(array, nm, raw)
    raw, valid, lost = _without_nodata(array, raw)
    raw, full_scale, said = _scaled(array, raw, options)
    if valid is not None:
        raw = np.where(valid, raw, raw.dtype.type(0))
    return Numbers(raw, full_scale, array, nm, valid, (*notes, *why, *turned, *empty, *lost, *said))


def take_bands(array: Array, bands: Sequence[int]) -> Array:
    """Return an array of some bands of another in this order, with their facts, still unread."""
    chosen = [int(band) for band in bands]

    def load(index: Index) -> np.ndarray:
        first, *rest = index or (slice(None),)
        wanted = np.asarray(chosen)[first]
        if wanted.ndim == 0:
            return array.load((int(wanted), *rest))
        low, high = int(wanted.min()), int(wanted.max()) + 1
        return array.load((slice(low, high), *rest))[wanted - low]

    def part(facts: Any) -> Any:
        one_a_band = len(facts) == array.shape[0]
        return tuple(facts[band] for band in chosen) if one_a_band else facts

    nm = array.wavelengths_nm
    return replace(
        array,
        shape=(len(chosen), *array.shape[1:]),
        load=load,
        scale=part(array.scale),
        offset=part(array.offset),
        bad_bands=tuple(chosen.index(band) for band in array.bad_bands if band in chosen),
        band_names=part(array.band_names),
        colours=part(array.colours),
        wavelengths_nm=None if nm is None else np.asarray(part(nm)),
    )


Banded = tuple[Array, np.ndarray | None, tuple[str, ...]]
"""An array, its wavelengths and notes."""


def _without_bad_bands(array: Array, nm: np.ndarray | None) -> Banded:
    """Leave out the bands that the file declares bad; `nm` may be those of all or of the rest."""
    bad, bands = set(array.bad_bands), array.shape[0]
    if not bad:
        return array, nm, ()
    good = [band for band in range(bands) if band not in bad]
    if not good:
        raise UserError(
            f"{array.path}: found all {bands} bands declared bad, expected some good ones; correct "
            "the header"
        )
    note = f"Of {bands} bands, {len(bad)} are declared bad and left out: {_ranges(sorted(bad))}."
    if nm is not None and len(nm) == bands:
        nm = nm[good]
    return take_bands(array, good), nm, (note,)


def _ranges(numbers: Sequence[int]) -> str:
    """Return numbers counted from 0 as ranges counted from 1, `3-5, 9`."""
    ends: list[list[int]] = []
    for number in numbers:
        if ends and number == ends[-1][1] + 1:
            ends[-1][1] = number
        else:
            ends.append([number, number])
    return ", ".join(f"{a + 1}" if a == b else f"{a + 1}-{b + 1}" for a, b in ends)


def _ascending(array: Array, nm: np.ndarray | None) -> Banded:
    """Turn bands that descend by wavelength."""
    if nm is None or nm.dtype.kind not in "uif" or not 1 < len(nm) == array.shape[0]:
        return array, nm, ()
    if not (np.diff(nm) < 0).all():
        return array, nm, ()
    turned = take_bands(array, range(array.shape[0])[::-1])
    return turned, nm[::-1], ("Bands descend by wavelength in the file, and are turned.",)


def _wavelengths(array: Array) -> np.ndarray | None:
    """Return the file's wavelengths; raise `UserError` for some that cannot be in nm."""
    nm = array.wavelengths_nm
    if nm is None or not nm.size or nm.dtype.kind not in "uif":
        return nm
    if nm.max() < SHORTEST_NM or (array.unit_unknown and nm.max() > LONGEST_NM):
        unit = "without a unit" if array.unit_unknown else f"nm in {array.wavelengths_from}"
        raise UserError(
            f"{array.path}: found wavelengths {nm.min():g} to {nm.max():g} {unit}, expected nm; "
            "write their unit into the header, as `wavelength units = Micrometers`, or say "
            "--wavelengths in nm"
        )
    return nm


def _missing(array: Array, raw: np.ndarray) -> np.ndarray:
    """Return True for each number [S, H, W] that the file declares to be none."""
    missing = np.zeros((1, 1, 1), bool)
    for nodata in array.nodata_values:
        if raw.dtype.kind == "f":  # as the file stores it, -3.4e38 in 32 bits
            with np.errstate(over="ignore"):
                nodata = raw.dtype.type(nodata)
        missing = missing | (np.isnan(raw) if np.isnan(nodata) else raw == nodata)
    if array.valid_range is not None:
        missing = missing | (raw < array.valid_range[0]) | (raw > array.valid_range[1])
    return missing


def _without_empty_bands(
    array: Array, nm: np.ndarray | None, raw: np.ndarray
) -> tuple[Array, np.ndarray | None, np.ndarray, tuple[str, ...]]:
    """Leave out bands without any data, unless there are no others."""
    empty = _missing(array, raw).all(axis=(1, 2))
    good, bands = np.flatnonzero(~empty), len(raw)
    if not empty.any() or not len(good):
        return array, nm, raw, ()
    note = (
        f"Of {bands} bands, {empty.sum()} hold no data and are left out: "
        f"{_ranges(np.flatnonzero(empty).tolist())}."
    )
    nm = nm[good] if nm is not None and len(nm) == bands else nm
    return take_bands(array, good.tolist()), nm, raw[good], (note,)


def _without_nodata(
    array: Array, raw: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Return numbers with 0 where there are no data, the mask of pixels with data, and notes."""
    missing_HW = np.broadcast_to(_missing(array, raw).any(axis=0), raw.shape[1:])
    why = [f"the value {value:g}" for value in array.nodata_values]
    if array.valid_range is not None:
        why.append("the valid range {:g} to {:g}".format(*array.valid_range))
    if array.load_valid is not None:
        missing_HW = missing_HW | ~array.load_valid()
        why.append("a mask")
    if not missing_HW.any():
        return raw, None, ()
    cause = " and ".join(why)
    if missing_HW.all():
        raise UserError(
            f"{array.path}: found no pixel with data in all {len(raw)} bands, expected some; the "
            f"file or option says by {cause} that there are none: correct it"
        )
    note = (
        f"{missing_HW.sum()} of {missing_HW.size} pixels ({missing_HW.mean():.1%}) have no data, "
        f"as {cause} says."
    )
    return np.where(missing_HW, raw.dtype.type(0), raw), ~missing_HW, (note,)


def _scaled(
    array: Array, raw: np.ndarray, options: Options
) -> tuple[np.ndarray, float, tuple[str, ...]]:
    """Return numbers, the one that means 1, and notes; the user's full scale comes first."""
    scales, offsets = _per_band(array, array.scale, 1.0), _per_band(array, array.offset, 0.0)
    declared = (scales != 1).any() or (offsets != 0).any()
    stated = array.full_scale if options.full_scale is None else options.full_scale
    notes: tuple[str, ...] = ()
    if stated is not None and declared:
        notes = (f"The full scale {stated:g} replaces the file's {_shown(scales, offsets)}.",)
    elif declared:
        notes = (f"The file declares {_shown(scales, offsets)}, which is applied.",)
        if len(set(scales)) == 1 and scales[0] > 0 and not offsets.any():
            stated = _inverse(scales[0])
        else:
            raw = raw * scales[:, None, None] + offsets[:, None, None]
            stated = 1.0
    where, option = f"{array.path}: {array.key}", f"--{options.prefix}full-scale"
    if stated is None and raw.dtype == np.uint8:
        notes = (f"8 bits of which the file says no scale: 255 is taken as 1, or say {option}.",)
    return raw, full_scale_of(raw, stated, where, option), notes


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
