"""ENVI and GeoTIFF rasters and their band centres, read with rasterio (optional)."""

import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from feinfn.data.readers.array import (
    Array,
    Index,
    check_size,
    folder_entries,
    import_optional,
    read_head,
    reading,
)
from feinfn.data.readers.numbers import take_bands
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
    unit, centres are as they stand, and the unit is None. Raises `UserError` for unknown units, and
    for a header of ENVI with more or fewer centres than bands.
    """
    envi = _NUMBER.findall(raster.tags(ns="ENVI").get("wavelength", ""))
    if envi and len(envi) != raster.count:
        raise UserError(
            f"{raster.name}: found {len(envi)} wavelengths for {raster.count} bands, expected one "
            "a band; correct the header"
        )
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


CACHE_MIB = 16
"""Memory in which GDAL keeps what it has read of ENVI, whose lines are never read twice; its own
limit is 5 % of the machine's."""
BESIDE = (".xml", ".png", ".jpg", ".jpeg", ".txt", ".json", ".csv", ".log", ".md", ".enp", ".sta")
"""Suffixes of what lies beside ENVI's data files and is none."""
TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")


def envi_header(path: Path) -> Path | None:
    """Return the ENVI header of a header or data file; None if it has none."""
    candidates = (path, path.with_suffix(".hdr"), Path(f"{path}.hdr"))
    files = (p for p in candidates if p.is_file() and p.stat().st_size)
    return next((p for p in files if read_head(p).startswith(b"ENVI")), None)


def envi_data(path: Path) -> Path:
    """Return the data file of an ENVI header or data file; raise `UserError` if it is missing."""
    header = envi_header(path)
    if header != path:
        return path
    stem = path.with_suffix("")
    for suffix in ("", ".img", ".dat", ".bsq", ".bil", ".bip", ".raw"):
        if (data := Path(f"{stem}{suffix}")).is_file():
            return data
    # Vendors have suffixes of their own, as .hyspex.
    others = [
        p
        for p in folder_entries(path.parent)
        if p.stem == stem.name and p.suffix.lower() not in (".hdr", *BESIDE) and p.is_file()
    ]
    if len(others) == 1:
        return others[0]
    names = ", ".join(p.name for p in others) or "none"
    raise UserError(
        f"{path}: found an ENVI header and, of its name, {names}, expected one data file "
        f"{stem.name} (or .img, .dat, .bsq, .bil, .bip, .raw) beside it; copy both, or name the "
        "data file"
    )


def raster_arrays(path: Path) -> dict[str, Array]:
    """Return the raster, [S, H, W], with all that its header says.

    Raises `UserError` if rasterio is missing.
    """
    with _opened(path) as raster:
        _check_meaning(path, raster)
        envi = raster.tags(ns="ENVI")
        factor = envi.get("reflectance_scale_factor")
        scale = None if factor is None else float(factor)
        nm, unit = raster_wavelengths(raster)
        alpha = _alpha_band(raster)
        masked = {flag.name for flag in raster.mask_flag_enums[0]} == {"per_dataset"}
        bad = [mark for mark in envi.get("bbl", "").strip("{} ").split(",") if mark.strip()]
        if bad and len(bad) != raster.count:
            raise UserError(
                f"{path}: found {len(bad)} marks of bad bands (bbl) for {raster.count} bands, "
                "expected one a band; correct the header"
            )
        array = Array(
            path=path,
            key=path.stem,
            shape=(raster.count, raster.height, raster.width),
            dtype=np.dtype(raster.dtypes[0]),
            load=partial(_load, path),
            axes="SHW",
            notes=() if scale is None else (f"ENVI's reflectance scale factor is {scale:g}.",),
            full_scale=scale,
            scale=tuple(raster.scales),
            offset=tuple(raster.offsets),
            nodata=raster.nodata,
            wavelengths_nm=nm,
            unit_unknown=unit is None,
            wavelengths_from=raster.driver if nm is not None else "",
            bad_bands=tuple(i for i, good in enumerate(bad) if good.strip() in ("0", "0.0")),
            band_names=tuple(text or "" for text in raster.descriptions),
            colours=tuple(colour.name for colour in raster.colorinterp),
            load_valid=partial(_load_mask, path, alpha) if alpha or masked else None,
            crs=raster.crs.to_string() if raster.crs else None,
            transform=tuple(raster.transform)[:6],
        )
        if not alpha and "alpha" in array.colours:
            band = array.colours.index("alpha") + 1
            note = f"Band {band} is called alpha but is no mask, so it is taken as a band."
            array = replace(array, notes=(*array.notes, note))
        if alpha:
            array = take_bands(array, [i for i in range(raster.count) if i + 1 != alpha])
            array = replace(array, notes=(*array.notes, "An alpha band is taken as the mask."))
    return {path.stem: array}


def _check_meaning(path: Path, raster: Any) -> None:
    """Raise `UserError` for a TIFF of several pages, and for numbers that do not mean light."""
    found = ""
    if pages := len(raster.subdatasets):
        found = f"{pages} pages, expected one with all bands; write them as bands of one page"
    elif raster.colorinterp[0].name == "palette":
        found = "indices of a colour table, expected measured numbers; write grey values"
    elif raster.tags(ns="IMAGE_STRUCTURE").get("MINISWHITE") == "YES":
        found = "numbers of which 0 is white, expected 0 for black; invert them, as BlackIsZero"
    if found:
        raise UserError(f"{path}: found {found}")


def _is_mask(alpha: np.ndarray) -> bool:
    """Return True for 0 and one other number; GDAL calls any fourth band of 8 bits alpha."""
    return len(np.unique(alpha[alpha != 0])) == 1


def _alpha_band(raster: Any) -> int | None:
    """Return the number of an alpha band that is a mask, counted from 1."""
    numbers = [i for i, colour in enumerate(raster.colorinterp, 1) if colour.name == "alpha"]
    return numbers[0] if numbers and _is_mask(raster.read(numbers[0])) else None


def _load_mask(path: Path, alpha: int | None) -> np.ndarray:
    """Read the mask, [H, W], True where there are data, from the alpha band if there is one."""
    with _opened(path) as raster:
        return (raster.read(alpha) if alpha else raster.read_masks(1)) > 0


def _load(path: Path, index: Index) -> np.ndarray:
    """Read a window after checking that the file is as long as its header says."""
    with _opened(path) as raster:
        shape = raster.count, raster.height, raster.width
        itemsize, stored = np.dtype(raster.dtypes[0]).itemsize, Path(raster.name).stat().st_size
        check_size(path, "a raster", shape, itemsize, stored)
        offset = int(raster.tags(ns="ENVI").get("header_offset", 0))
        expected = offset + math.prod(shape) * itemsize
        # rasterio silently fills the missing part of a short ENVI file with zeros, and reads bands
        # from wrong places if the header says fewer rows or columns than there are.
        if raster.driver == "ENVI" and stored != expected:
            why = "the file is truncated: copy it again"
            if stored > expected:
                why = "the header is that of a smaller file: correct it"
            raise UserError(
                f"{raster.name}: found {stored} bytes, expected {expected} for shape {shape}; {why}"
            )
        spans: Index = index + (slice(None),) * (3 - len(index))
        if raster.tags(ns="ENVI").get("interleave", "").lower() == "bip":
            return np.array(_pixels(raster, offset)[spans])
        window = [range(size)[span] for size, span in zip(shape[1:], spans[1:], strict=True)]
        return raster.read(window=tuple((x.start, x.stop) for x in window))[spans[0]]


def _pixels(raster: Any, offset: int) -> np.ndarray:
    """Return ENVI of whole spectra, [S, H, W], mapped: GDAL reads all columns for each band."""
    order = ">" if raster.tags(ns="ENVI").get("byte_order") == "1" else "<"
    dtype = np.dtype(raster.dtypes[0]).newbyteorder(order)
    shape = raster.height, raster.width, raster.count
    return np.moveaxis(np.memmap(raster.name, dtype, "r", offset, shape), -1, 0)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    start = read_head(path)
    file = path if start.startswith(TIFF) else envi_data(path)
    driver = "GTiff" if file == path and start.startswith(TIFF) else "ENVI"
    rasterio = import_optional(path, "rasterio", "mhiflab[geo]")
    with reading(path, f"{driver} raster"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # most scenes have no map projection and need none
        limit = {"GDAL_CACHEMAX": CACHE_MIB} if driver == "ENVI" else {}
        with rasterio.Env(**limit), rasterio.open(file, driver=driver) as raster:
            yield raster
