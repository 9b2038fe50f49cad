"""Order and place of the images of a pair: bands of an MSI, and grids on the ground.

Legend: S bands, M MSI bands, H W rows and columns.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from feinfn.data.images import Image
from feinfn.data.readers.array import Array
from feinfn.data.readers.numbers import take_bands
from feinfn.errors import UserError
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.response import read_srf

COLOURS = {"b": "blue", "g": "green", "r": "red", "nir": "nir", "pan": "pan"}
"""Names of MSI bands in protocols, and the words that files use for them."""


def ordered_msi(
    array: Array, protocol: Protocol | None, told: Sequence[int] | None = None
) -> tuple[Array, str]:
    """Return an MSI's bands in a protocol's order, unread, and a sentence about it.

    The order is the user's (`told`, counted from 1), else that of the names, colours or wavelengths
    in the file; if it has none of them for every band of the protocol, it is taken as it is. The
    sentence is empty if nothing is known.
    """
    if told is not None:
        if not set(told) <= set(range(1, array.shape[0] + 1)):
            raise UserError(
                f"--msi-bands: found {', '.join(map(str, told))}, expected numbers from 1 to "
                f"{array.shape[0]}, the bands of {array.path}"
            )
        return take_bands(array, [band - 1 for band in told]), _said(told, "as was asked")
    if protocol is None:
        return array, ""
    for facts, why in ((array.band_names, "by their names"), (array.colours, "by their colours")):
        if bands := _by_words(array.path, facts, tuple(protocol.msi_order)):
            return take_bands(array, bands), _said([band + 1 for band in bands], why)
    centres_M, nm = protocol_centres(protocol), array.wavelengths_nm
    if centres_M is None or nm is None or len(nm) != len(centres_M) or len(set(nm)) < len(nm):
        return array, ""
    bands = np.argsort(nm)[np.argsort(np.argsort(centres_M))].tolist()
    return take_bands(array, bands), _said([band + 1 for band in bands], "by wavelength")


def _said(bands: Sequence[int], why: str) -> str:
    return f"bands {', '.join(map(str, bands))} of the file, {why}"


def _by_words(path: Path, words: Sequence[str], order: Sequence[str]) -> list[int]:
    """Return the band of each name in `order`; empty if no name fits a band.

    A single name that fits none takes the single band that is left. Raises `UserError` if the names
    that fit contradict the order, and others fit no band or several.
    """
    bands: dict[str, int] = {}
    for name in order:
        names = {name.lower(), COLOURS.get(name.lower(), name.lower())}
        fits = [i for i, text in enumerate(words) if names & set(re.findall(r"\w+", text.lower()))]
        if len(fits) == 1:
            bands[name] = fits[0]
    rest = [i for i in range(len(words)) if i not in bands.values()]
    missing = [name for name in order if name not in bands]
    if len(missing) == len(rest) == 1 and len(bands) > 1:
        bands[missing[0]], missing = rest[0], []
    if not missing and len(set(bands.values())) == len(order):
        return [bands[name] for name in order]
    if any(order[band : band + 1] != (name,) for name, band in bands.items()):
        found = ", ".join(f"{name} in band {band + 1}" for name, band in bands.items())
        raise UserError(
            f"{path}: found {found} of {len(words)}, expected the bands {', '.join(order)} in this "
            "order, or a name for each; say which ones to take with --msi-bands, as 3,2,1"
        )
    return []


def protocol_centres(protocol: Protocol) -> np.ndarray | None:
    """Return the mean wavelengths of a protocol's MSI bands in nm, [M]; None if not known."""
    if protocol.srf == "measured":
        return None
    try:
        table = read_srf(protocol.srf)
    except UserError:
        # A user's own response file may be missing on the machine that uses the network.
        return None
    if table.grid_nm is None:
        return None
    rows_MN = table.values_MN[[table.names.index(name) for name in protocol.msi_order]]
    return rows_MN @ table.grid_nm / rows_MN.sum(axis=1)


Ends = tuple[float, float]
"""Coordinates of an image's left and right, or upper and lower, edge."""


def _edges(image: Image) -> tuple[Ends, Ends] | None:
    """Return x of left and right edge, y of upper and lower; None without georeference.

    Raises `UserError` for a grid that is rotated.
    """
    place = image.array.transform if image.array else None
    if place is None or place == (1, 0, 0, 0, 1, 0):
        return None
    a, b, c, d, e, f = place
    if abs(b) > 1e-6 * abs(a) or abs(d) > 1e-6 * abs(e):
        raise UserError(
            f"{image.path}: found a grid that is rotated against its coordinates, expected rows "
            "and columns along them; warp both images to one grid (gdalwarp)"
        )
    height, width = image.values_SHW.shape[1:]
    return (c, c + a * width), (f, f + e * height)


def on_the_same_ground(image: Image, hsi: Image) -> Image:
    """Return an image turned as another, mostly an LR-HSI, lies, after comparing where both lie.

    Nothing is compared unless both are georeferenced. Raises `UserError` for other coordinate
    systems, and for edges that differ by more than half a pixel of the LR-HSI.
    """
    own, expected = _edges(image), _edges(hsi)
    if own is None or expected is None:
        return image
    systems = [x.array.crs for x in (image, hsi) if x.array]
    if all(systems) and systems[0] != systems[1]:
        raise UserError(
            f"{image.path}: found coordinates in {_short(systems[0])}, expected "
            f"{_short(systems[1])}, as {hsi.path} has; warp one of them (gdalwarp)"
        )
    turned = [(x[1] - x[0]) * (y[1] - y[0]) < 0 for x, y in zip(own, expected, strict=True)]
    size = hsi.values_SHW.shape[:0:-1]
    for (low, high), there, pixels, axis in zip(own, expected, size, ("x", "y"), strict=True):
        limit = abs(there[1] - there[0]) / pixels / 2
        here, wanted = sorted((low, high)), sorted(there)
        if max(abs(here[0] - wanted[0]), abs(here[1] - wanted[1])) > limit:
            raise UserError(
                f"{image.path}: found ground from {here[0]:.10g} to {here[1]:.10g} in {axis}, "
                f"expected {wanted[0]:.10g} to {wanted[1]:.10g}, as {hsi.path} has, within half of "
                "its pixel; cut both to the same ground, or name the images that belong together"
            )
    return _flipped(image, hsi.path, columns=turned[0], rows=turned[1])


def _short(crs: str | None) -> str:
    return (crs or "none").partition("[")[2].partition(",")[0] or (crs or "none")


def _flipped(image: Image, other: Path, *, columns: bool, rows: bool) -> Image:
    """Return an image mirrored in place, its georeference too."""
    if not (columns or rows):
        return image
    assert image.array is not None, "only georeferenced images are turned"
    a, b, c, d, e, f = image.array.transform or ()
    height, width = image.values_SHW.shape[1:]
    if columns:
        c, a = c + a * width, -a
    if rows:
        f, e = f + e * height, -e
    step = (slice(None, None, -1 if rows else 1), slice(None, None, -1 if columns else 1))
    return replace(
        image,
        values_SHW=np.ascontiguousarray(image.values_SHW[(slice(None), *step)]),
        valid_HW=None if image.valid_HW is None else image.valid_HW[step],
        array=replace(image.array, transform=(a, b, c, d, e, f)),
        notes=(*image.notes, f"It lies the other way round than {other.name}, and is turned."),
    )
