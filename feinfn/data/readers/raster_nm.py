"""Band centres of a raster, wherever GDAL's drivers and other programs put them."""

import re
from typing import Any

import numpy as np

from feinfn.errors import UserError

PER_NM = dict.fromkeys(("nanometers", "nanometer", "nanometres", "nm"), 1.0)
PER_NM |= dict.fromkeys(("micrometers", "micrometer", "micrometres", "microns", "micron"), 1000.0)
PER_NM |= {"um": 1000.0, "\u00b5m": 1000.0, "\u03bcm": 1000.0}
"""Units of wavelengths, in nm."""

NAMES = ("wavelength", "wavelengths", "central_wavelength", "center_wavelength")
"""Names of tags that hold band centres; `_nm` and `_um` may follow."""

_TEXT = re.compile(rf"(\d+(?:\.\d+)?)\s*({'|'.join(PER_NM)})\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+")


def raster_wavelengths(raster: Any) -> tuple[np.ndarray | None, str | None]:
    """Return band centres of an open raster in nm and their unit in the file.

    Searches the tags of bands, those of the whole file, then descriptions as `450 nm`. Without a
    unit, centres are as they stand, and the unit is None. Raises `UserError` for unknown units.
    """
    bands = [{**raster.tags(i), **raster.tags(i, ns="IMAGERY")} for i in raster.indexes]
    whole = raster.tags()
    found = [_tag(tags) for tags in bands]
    if all(found):
        values, units = zip(*(pair for pair in found if pair), strict=True)
        centres = [_first(value) for value in values]
    elif (listed := _tag(whole)) and len(_NUMBER.findall(listed[0])) == raster.count:
        centres, units = [float(x) for x in _NUMBER.findall(listed[0])], (listed[1],)
    else:
        numbered = [whole.get(f"Band_{i}", "") for i in raster.indexes]
        for texts in (raster.descriptions, numbered):
            matches = [_TEXT.search(text or "") for text in texts]
            if all(matches):
                pairs = [m.groups() for m in matches if m]
                return np.array([float(x) * PER_NM[u.lower()] for x, u in pairs]), pairs[0][1]
        return None, None
    known = {unit.lower() for unit in units} - {"", "unknown"}
    if len(known) > 1 or not known <= PER_NM.keys() or None in centres:
        raise UserError(
            f"{raster.name}: found wavelength units {sorted(known)}, expected nanometers or "
            "micrometers; correct the header"
        )
    unit = min(known, default=None)
    return np.array(centres, np.float64) * PER_NM.get(unit or "nm", 1.0), unit


def _first(text: str) -> float | None:
    match = _NUMBER.search(text)
    return float(match[0]) if match else None


def _tag(tags: dict[str, str]) -> tuple[str, str] | None:
    """Return value and unit of the first tag that names wavelengths."""
    lower = {key.lower(): value for key, value in tags.items()}
    unit = lower.get("wavelength_units", lower.get("wavelength_unit", ""))
    for name in NAMES:
        for suffix, own in (("", unit), ("_nm", "nm"), ("_um", "um")):
            if name + suffix in lower:
                text = lower[name + suffix]
                stated = _TEXT.search(text)
                return text, stated[2] if stated else own
    return None
