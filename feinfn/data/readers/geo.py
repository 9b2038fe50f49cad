"""ENVI and GeoTIFF rasters, read with rasterio (an optional dependency)."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from feinfn.data.readers.array import (
    Array,
    Index,
    check_size,
    import_optional,
    read_head,
    reading,
)
from feinfn.errors import UserError

TIFF = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_PER_NM = {"nanometers": 1.0, "nanometer": 1.0, "nm": 1.0, "unknown": 1.0, "": 1.0}
_PER_NM |= {"micrometers": 1000.0, "micrometer": 1000.0, "microns": 1000.0, "um": 1000.0}


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
    raise UserError(
        f"{path}: found an ENVI header, expected its data file {stem.name} (or .img, .dat, .bsq, "
        ".bil, .bip, .raw) beside it; copy both"
    )


def raster_arrays(path: Path) -> dict[str, Array]:
    """Return the raster, [S, H, W], with all that its header says.

    Wavelengths without a unit count as nm. Raises `UserError` if rasterio is missing.
    """
    with _opened(path) as raster:
        envi = raster.tags(ns="ENVI")
        factor = envi.get("reflectance_scale_factor")
        scale = None if factor is None else float(factor)
        nm = _wavelengths(path, [raster.tags(i) for i in raster.indexes])
        bad = envi.get("bbl", "").strip("{} ").split(",")
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
            wavelengths_from=raster.driver if nm is not None else "",
            bad_bands=tuple(i for i, good in enumerate(bad) if good.strip() in ("0", "0.0")),
            band_names=tuple(text or "" for text in raster.descriptions),
            colours=tuple(colour.name for colour in raster.colorinterp),
            crs=raster.crs.to_string() if raster.crs else None,
            transform=tuple(raster.transform)[:6],
        )
    return {path.stem: array}


def _load(path: Path, index: Index) -> np.ndarray:
    """Read a window after checking that the file is as long as its header says."""
    with _opened(path) as raster:
        shape = raster.count, raster.height, raster.width
        itemsize, stored = np.dtype(raster.dtypes[0]).itemsize, Path(raster.name).stat().st_size
        check_size(path, "a raster", shape, itemsize, stored)
        offset = int(raster.tags(ns="ENVI").get("header_offset", 0))
        expected = offset + math.prod(shape) * itemsize
        # rasterio silently fills the missing part of a short ENVI file with zeros.
        if raster.driver == "ENVI" and stored < expected:
            raise UserError(
                f"{raster.name}: found {stored} bytes, expected {expected} for shape {shape}; the "
                "file is truncated: copy it again"
            )
        spans: Index = index + (slice(None),) * (3 - len(index))
        window = [range(size)[span] for size, span in zip(shape[1:], spans[1:], strict=True)]
        return raster.read(window=tuple((x.start, x.stop) for x in window))[spans[0]]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    start = read_head(path)
    file = path if start.startswith(TIFF) else envi_data(path)
    driver = "GTiff" if file == path and start.startswith(TIFF) else "ENVI"
    rasterio = import_optional(path, "rasterio", "mhiflab[geo]")
    with reading(path, f"{driver} raster"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # most scenes have no map projection and need none
        with rasterio.open(file, driver=driver) as raster:
            yield raster


def _wavelengths(path: Path, tags: list[dict[str, str]]) -> np.ndarray | None:
    if any("wavelength" not in tag for tag in tags):
        return None
    units = {tag.get("wavelength_units", "").lower() for tag in tags}
    if len(units) > 1 or not units <= _PER_NM.keys():
        raise UserError(
            f"{path}: found wavelength units {sorted(units)}, expected nanometers or micrometers; "
            "correct the header"
        )
    return np.array([float(tag["wavelength"]) * _PER_NM[min(units)] for tag in tags])
