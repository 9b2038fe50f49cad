"""Folders with one numbered grey image per band.

CAVE in its original layout is one of them: `<scene>_ms/<scene>_ms/<scene>_ms_NN.png`, or one level
less.

Legend: S bands, H rows, W columns.
"""

import re
import struct
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np

from feinfn.data.readers.common import (
    DEFAULTS,
    Options,
    check_size,
    folder_entries,
    import_optional,
    is_folder,
    read_head,
    reading,
)
from feinfn.data.readers.geo import raster_arrays, read_raster
from feinfn.data.scene import Scene
from feinfn.errors import UserError

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


def check_numbers(folder: Path, files: dict[int, Path], expected: range) -> None:
    """Raise `UserError` that names missing and extra bands, twenty of each at most."""
    missing = list(islice((n for n in expected if n not in files), 20))
    extra = [n for n in files if n not in expected][:20]
    if missing or extra:
        raise UserError(
            f"{folder}: found {len(files)} bands (missing: {missing or 'none'}; extra: "
            f"{extra or 'none'}), expected {expected[0]} to {expected[-1]}; copy the scene again "
            "or remove what is not part of it"
        )


def read_bands(
    files: dict[int, Path], full_scale: float | None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the images as uint16 (or a raster's own type) [S, H, W], and notes.

    8-bit PNGs are scaled to 16 bits (x 257). Raises `UserError` for images of different sizes or
    depths, and for colour.
    """
    bands = {
        f: _png(f) if f.suffix.lower() == ".png" else _raster(f, full_scale) for f in files.values()
    }
    (first, reference), *others = bands.items()
    for file, band in others:
        if (band.dtype, band.shape) != (reference.dtype, reference.shape):
            raise UserError(
                f"{file}: found {band.dtype} of shape {band.shape}, expected {reference.dtype} "
                f"{reference.shape} as in {first.name}; the bands of a scene share size and bit "
                "depth: copy this one again"
            )
    raw = np.stack(list(bands.values()))
    if raw.dtype != np.uint8:
        return raw, ()
    return raw.astype(np.uint16) * 257, ("8-bit images, brought to 16 bits (x 257).",)


def _png(path: Path) -> np.ndarray:
    """Return a grey PNG as uint8 or uint16 [H, W]."""
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
    pillow = import_optional(path, "PIL.Image", "pillow")
    # Read from memory: from a file, Pillow allocates any length that a damaged chunk claims.
    content = BytesIO(path.read_bytes())
    with reading(path, "PNG"), pillow.open(content, formats=["PNG"]) as image:
        pixels = np.asarray(image)
    if pixels.ndim == 3:
        if (pixels[..., :3] != pixels[..., :1]).any():
            raise UserError(
                f"{path}: found colour (R, G and B differ), expected a grey image; a colour "
                "rendering is not a band: remove it or rename it without a number"
            )
        pixels = pixels[..., 0]
    return pixels.astype(np.uint8 if depth == 8 else np.uint16)


def _raster(path: Path, full_scale: float | None) -> np.ndarray:
    raster = read_raster(path, Options(full_scale=full_scale))
    if len(raster.raw_SHW) != 1:
        raise UserError(
            f"{path}: found {len(raster.raw_SHW)} bands, expected one in each file of a sequence; "
            "read the file by itself"
        )
    return raster.raw_SHW[0]


def read_sequence(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read a folder of numbered single-band images, ascending by number without gaps."""
    prefix, files = band_files(path)
    if not files:
        raise UserError(
            f"{path}: found no numbered images, expected <scene>_01.png, <scene>_02.png, ...; name "
            "the folder that holds them"
        )
    check_numbers(path, files, range(min(files), max(files) + 1))
    raw_SHW, notes = read_bands(files, options.full_scale)
    return options.scene(raw_SHW, path, name=prefix or path.resolve().name, notes=notes)


WAVELENGTHS_NM = np.arange(400.0, 701.0, 10.0)


def read_cave(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read a CAVE scene: 31 grey PNGs of 16 bits, 400 to 700 nm; other files are ignored.

    `path` is the inner or the outer folder. `watercolors_ms` is stored with 8 bits, as the scene's
    notes say. Raises `UserError` that names missing, extra or doubled bands, mixed bit depths and
    colour. Source: Yasuma et al., IEEE TIP 2010.
    """
    prefix, files = band_files(path)
    if not prefix.lower().endswith("_ms"):
        raise UserError(
            f"{path}: found images named {prefix!r}, expected a CAVE scene, <scene>_ms_01.png to "
            "<scene>_ms_31.png; name the scene's folder"
        )
    check_numbers(path, files, range(1, len(WAVELENGTHS_NM) + 1))
    raw_SHW, notes = read_bands(files, options.full_scale)
    return options.scene(raw_SHW, path, name=prefix, wavelengths_nm=WAVELENGTHS_NM, notes=notes)
