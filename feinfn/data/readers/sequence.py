"""Folders with one numbered grey image per band.

CAVE in its original layout is one of them: `<scene>_ms/<scene>_ms/<scene>_ms_NN.png`, or one level
less. Source: Yasuma et al., IEEE TIP 2010.

Legend: S bands, H rows, W columns.
"""

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from feinfn.data.readers.array import (
    Array,
    Index,
    check_size,
    folder_entries,
    import_optional,
    is_folder,
    read_head,
    reading,
)
from feinfn.data.readers.geo import raster_arrays
from feinfn.errors import UserError

CAVE_NM = np.arange(400.0, 701.0, 10.0)

_BAND = re.compile(
    r"(?!\.)(?P<prefix>.*?)_?(?P<number>[0-9]+)\.(?P<suffix>png|tiff?)", re.IGNORECASE
)


def band_files(folder: Path) -> tuple[str, dict[int, Path]]:
    """Return the common part of the names, and band number -> file in ascending order.

    Searches `folder`, then the folder of the same name in it. Both results are empty if there are
    no numbered images. Raises `UserError` for two images of one number, or for images of more than
    one scene.
    """
    for place in (folder, folder / folder.resolve().name):
        names = folder_entries(place) if is_folder(place) else []
        matches = [(m, f) for f in names if (m := _BAND.fullmatch(f.name)) and _is_band(f)]
        if matches:
            break
    else:
        return "", {}
    kinds = sorted({f"{m['prefix']}*.{m['suffix'].lower()}" for m, _ in matches})
    if len(kinds) > 1:
        raise UserError(
            f"{place}: found images of {len(kinds)} scenes ({', '.join(kinds[:4])}), expected the "
            "bands of one; give each scene a folder of its own"
        )
    files: dict[int, Path] = {}
    for match, file in sorted(matches, key=lambda pair: (int(pair[0]["number"]), pair[1])):
        number = int(match["number"])
        if number in files:
            raise UserError(
                f"{file}: found band {number} twice (also {files[number].name}), expected one file "
                "a band; remove the wrong one"
            )
        files[number] = file
    return matches[0][0]["prefix"], files


def _is_band(path: Path) -> bool:
    """Return True for the image of one band, False for a raster of many bands."""
    if path.suffix.lower() == ".png" or not path.is_file():
        return path.is_file()
    try:
        return all(array.shape[0] == 1 for array in raster_arrays(path).values())
    except UserError:
        return True  # a damaged band counts as a band, so that reading it reports the damage


def band_arrays(path: Path) -> tuple[dict[str, Array], bool]:
    """Return the images of a folder as one array, [S, H, W], and True if it is a CAVE scene.

    Bands ascend by number without gaps; those of CAVE are 1 to 31, 400 to 700 nm. 8-bit images are
    scaled to 16 bits (x 257). Raises `UserError` that names missing, extra or doubled bands; `load`
    raises it for images of different sizes or depths, and for colour.
    """
    prefix, files = band_files(path)
    if not files:
        raise UserError(
            f"{path}: found a folder without numbered images, expected a scene, as <scene>_01.png, "
            "<scene>_02.png, ...; name a scene in it"
        )
    cave = prefix.lower().endswith("_ms")
    numbers = range(1, len(CAVE_NM) + 1) if cave else range(min(files), max(files) + 1)
    missing = list(islice((n for n in numbers if n not in files), 20))
    extra = [n for n in files if n not in numbers][:20]
    if missing or extra:
        raise UserError(
            f"{path}: found {len(files)} bands (missing: {missing or 'none'}; extra: "
            f"{extra or 'none'}), expected {numbers[0]} to {numbers[-1]}; copy the scene again or "
            "remove what is not part of it"
        )
    shape, dtype, _ = _open_band(next(iter(files.values())))
    facts = _facts_of_rasters(list(files.values()))
    declared = any(x != 1 for x in facts.get("scale", ())) or any(facts.get("offset", ()))
    eight_bits = dtype == np.uint8 and not declared
    if eight_bits and facts.get("nodata") is not None:
        facts["nodata"] *= 257

    def load(index: Index) -> np.ndarray:
        stack = _stacked(files)
        return (stack.astype(np.uint16) * 257 if eight_bits else stack)[index]

    name = prefix or path.resolve().name
    array = Array(
        path=path,
        key=name,
        shape=(len(files), *shape),
        dtype=np.dtype(np.uint16) if eight_bits else dtype,
        load=load,
        axes="SHW",
        name=name,
        **facts,
        full_scale=65535.0 if eight_bits or (cave and dtype == np.uint16) else None,
        notes=("8-bit images, of which 255 is taken as 1, brought to 16 bits (x 257).",)
        if eight_bits
        else (),
    )
    if cave:
        array = replace(array, wavelengths_nm=CAVE_NM, wavelengths_from="CAVE")
    return {name: array}, cave


def _facts_of_rasters(files: Sequence[Path]) -> dict[str, Any]:
    """Return what GeoTIFF of one band each say; empty for PNG.

    Raises `UserError` for bands that lie elsewhere than the first, or mark no data otherwise.
    """
    if any(path.suffix.lower() == ".png" for path in files):
        return {}
    bands = [next(iter(raster_arrays(path).values())) for path in files]
    first = bands[0]
    for path, band in zip(files, bands, strict=True):
        for what in ("crs", "transform", "nodata"):
            value, expected = getattr(band, what), getattr(first, what)
            if value != expected and not (value != value and expected != expected):
                raise UserError(
                    f"{path}: found {what} {value}, expected {expected} as in {files[0].name}; the "
                    "bands of a scene lie on one grid: warp or correct this one"
                )
    masks = [band.load_valid for band in bands if band.load_valid is not None]
    centres = [band.wavelengths_nm for band in bands]
    nm = (
        None
        if any(x is None for x in centres)
        else np.concatenate([x for x in centres if x is not None])
    )
    return {
        "scale": tuple(x for band in bands for x in band.scale),
        "offset": tuple(x for band in bands for x in band.offset),
        "nodata": first.nodata,
        "load_valid": (lambda: np.logical_and.reduce([m() for m in masks])) if masks else None,
        "wavelengths_nm": nm,
        "wavelengths_from": "" if nm is None else first.wavelengths_from,
        "unit_unknown": any(band.unit_unknown for band in bands),
        "band_names": tuple(x for band in bands for x in band.band_names),
        "colours": tuple(x for band in bands for x in band.colours),
        "crs": first.crs,
        "transform": first.transform,
    }


def _stacked(files: dict[int, Path]) -> np.ndarray:
    """Return the images, [S, H, W] as stored; raise `UserError` if one differs from the first."""
    bands = {file: _open_band(file)[2]() for file in files.values()}
    (first, reference), *others = bands.items()
    for file, band in others:
        if (band.dtype, band.shape) != (reference.dtype, reference.shape):
            raise UserError(
                f"{file}: found {band.dtype} of shape {band.shape}, expected {reference.dtype} "
                f"{reference.shape} as in {first.name}; the bands of a scene share size and bit "
                "depth: copy this one again"
            )
    return np.stack(list(bands.values()))


def _open_band(path: Path) -> tuple[tuple[int, ...], np.dtype, Callable[[], np.ndarray]]:
    """Return shape [H, W] and type of the image of one band, and the call that reads it."""
    if path.suffix.lower() != ".png":
        (array,) = raster_arrays(path).values()
        if array.shape[0] != 1:
            raise UserError(
                f"{path}: found {array.shape[0]} bands, expected one in each file of a sequence; "
                "read the file by itself"
            )
        return array.shape[1:], array.dtype, lambda: array.load((0,))
    start = read_head(path)
    if start[:8] != b"\x89PNG\r\n\x1a\n" or start[12:16] != b"IHDR" or len(start) < 26:
        raise UserError(f"{path}: found another format, expected PNG; copy the image again")
    width, height, depth, colour = struct.unpack(">IIBB", start[16:26])
    # Pillow silently reduces 16-bit colour to 8 bits, so the header decides, not Pillow's mode.
    if (depth, colour) not in ((16, 0), (8, 0), (8, 2), (8, 6)):
        raise UserError(
            f"{path}: found {depth} bits of PNG colour type {colour}, expected 16-bit or 8-bit "
            "grey (or 8-bit RGB with R = G = B); export the band as a grey image"
        )
    check_size(path, "an image", (height, width), depth // 8, path.stat().st_size)
    dtype = np.dtype(np.uint8 if depth == 8 else np.uint16)
    return (height, width), dtype, lambda: _png(path).astype(dtype)


def _png(path: Path) -> np.ndarray:
    """Return the pixels of a grey PNG [H, W]; raise `UserError` for colour."""
    pillow = import_optional(path, "PIL.Image", "pillow")
    # Read from memory: from a file, Pillow allocates any length that a damaged chunk claims.
    content = BytesIO(path.read_bytes())
    with reading(path, "PNG"), pillow.open(content, formats=["PNG"]) as image:
        pixels = np.asarray(image)
    if pixels.ndim == 2:
        return pixels
    if (pixels[..., :3] != pixels[..., :1]).any():
        raise UserError(
            f"{path}: found colour (R, G and B differ), expected a grey image; a colour rendering "
            "is not a band: remove it or rename it without a number"
        )
    return pixels[..., 0]
