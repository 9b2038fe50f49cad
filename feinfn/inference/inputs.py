"""Files of one fusion: LR-HSI, MSI and reference, checked against the network.

Legend: S bands, M MSI bands, N wavelengths of a table.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from feinfn.data.images import Image, read_image
from feinfn.data.readers.common import is_folder
from feinfn.data.readers.formats import KINDS, kind_of
from feinfn.data.readers.geo import envi_header, raster_arrays
from feinfn.data.readers.sequence import band_files
from feinfn.errors import UserError
from feinfn.protocols.response import read_srf
from feinfn.protocols.simulate import Protocol

BEYOND = 0.25
"""Distance by which noise and glints may leave [0, 1]; other units exceed it by far."""

PREFIXES = {"LR-HSI": "", "MSI": "msi-", "reference": "reference-"}
"""Prefixes of a file's options, by the file's role."""

SCALE_FACTOR = "reflectance scale factor"
"""Key of the full scale in an ENVI header."""


def stored_type(path: Path, key: str | None = None) -> np.dtype | None:
    """Return the type of a file's numbers; None if it is not clear which array is meant."""
    if is_folder(path):
        files = list(band_files(path)[1].values())
        # Folders of PNGs are read as 16 bits, whatever their files have.
        if not files or files[0].suffix.lower() == ".png":
            return np.dtype(np.uint16)
        arrays = raster_arrays(files[0])
    else:
        arrays = KINDS[kind_of(path)].arrays(path)
    types = [
        a.dtype
        for k, a in arrays.items()
        if k == key or len(arrays) == 1 or (key is None and len(a.shape) == 3)
    ]
    return np.dtype(types[0]).newbyteorder("=") if len(types) == 1 else None


def shared_scale(
    full_scale: float | None, hsi: tuple[Path, str | None], other: tuple[Path, str | None]
) -> float | None:
    """Return the LR-HSI's full scale for a file of integers of the same type, otherwise None.

    Files are given with the key of their array. Floats and other integers have their own units, and
    so has an ENVI file that states its reflectance scale factor.
    """
    if full_scale is None or _states_scale(other[0]):
        return None
    kind = stored_type(*other)
    same = kind is not None and np.issubdtype(kind, np.integer) and kind == stored_type(*hsi)
    return full_scale if same else None


def _states_scale(path: Path) -> bool:
    header = None if is_folder(path) else envi_header(path)
    return header is not None and SCALE_FACTOR in header.read_text(errors="replace").lower()


def read_input(
    path: Path,
    bands: int,
    what: str,
    key: str | None = None,
    full_scale: float | None = None,
    bands_axis: int | None = None,
) -> Image:
    """Return a float32 image for a network of `bands` bands, read as by `read_image`.

    `what` is one of `PREFIXES`. Raises `UserError` for another number of bands, and for values far
    outside [0, 1].
    """
    kind = stored_type(path, key)
    scale_known = (
        kind is None or kind in (np.uint8, np.uint16) or not np.issubdtype(kind, np.integer)
    )
    if full_scale is None and not scale_known and not _states_scale(path):
        raise UserError(
            f"{path}: found numbers of type {kind} in the {what}, expected uint8, uint16 or floats "
            f"in [0, 1]; say which stored number means 1 (--{PREFIXES[what]}full-scale)"
        )
    try:
        image = read_image(path, key, full_scale=full_scale, bands_axis=bands_axis)
    except UserError as error:
        # The reader does not know that the file is one of several, so its option lacks the prefix.
        raise UserError(str(error).replace("--key", f"--{PREFIXES[what]}key")) from None
    values = np.ascontiguousarray(image.values_SHW, dtype=np.float32)
    if len(values) != bands:
        raise UserError(
            f"{path}: found shape {values.shape} [bands, rows, columns], expected {bands} bands of "
            f"the {what}, as the network has; axes are [rows, columns, bands] in .mat files alone, "
            "otherwise name the axis of the bands (--bands-axis), or use a network of these bands"
        )
    remedy = f"say which stored number means 1 (--{PREFIXES[what]}full-scale)"
    check_unit(values, str(path), f" in the {what}", remedy)
    return Image(values, image.wavelengths_nm)


def check_unit(values: np.ndarray, where: str, what: str, remedy: str) -> None:
    """Raise `UserError` for values far outside [0, 1], and for NaN."""
    low, high = float(values.min()), float(values.max())
    if not (low >= -BEYOND and high <= 1 + BEYOND):
        raise UserError(
            f"{where}: found values from {low:g} to {high:g}{what}, expected [0, 1]; {remedy}"
        )


def read_companion(
    path: Path,
    bands: int,
    what: str,
    key: str | None,
    full_scale: float | None,
    bands_axis: int | None,
    hsi: tuple[Path, str | None, float | None],
) -> Image:
    """Return an image of the same scene as an LR-HSI, as `read_input` does.

    `hsi` is the LR-HSI's file, key and full scale. If `full_scale` is None, `shared_scale` decides
    whether the LR-HSI's applies.
    """
    if full_scale is None:
        full_scale = shared_scale(hsi[2], hsi[:2], (path, key))
    return read_input(path, bands, what, key, full_scale, bands_axis)


def band_mismatch(found_nm: np.ndarray, trained_nm: Sequence[float]) -> str:
    """Return a sentence about HSI bands that differ from those of a training, empty if they match.

    They match within half of the training's smallest band distance.
    """
    trained = np.asarray(trained_nm)
    limit = np.diff(trained).min(initial=np.inf) / 2
    if len(found_nm) == len(trained) and (abs(found_nm - trained) <= limit).all():
        return ""
    return (
        f"found {len(found_nm)} bands from {found_nm.min():g} to {found_nm.max():g} nm, expected "
        f"the {len(trained)} from {trained.min():g} to {trained.max():g} nm of the network's "
        f"training, each within {limit:g} nm; what it makes of others was never tested"
    )


def check_msi_order(image: Image, protocol: Protocol | None, path: Path) -> None:
    """Raise `UserError` if an MSI's wavelengths do not follow the protocol's MSI bands.

    Nothing is checked if the file, the protocol or its response has no wavelengths.
    """
    if image.wavelengths_nm is None or protocol is None or protocol.srf == "measured":
        return
    try:
        table = read_srf(protocol.srf)
    except UserError:
        # A user's own response file may be missing on the machine that uses the network.
        return
    if table.grid_nm is None:
        return
    rows_MN = table.values_MN[[table.names.index(name) for name in protocol.msi_order]]
    centres_M = rows_MN @ table.grid_nm / rows_MN.sum(axis=1)
    if (np.argsort(centres_M) != np.argsort(image.wavelengths_nm)).any():
        found, expected = (
            ", ".join(f"{nm:.0f}" for nm in x) for x in (image.wavelengths_nm, centres_M)
        )
        raise UserError(
            f"{path}: found MSI bands at {found} nm, expected them in the order "
            f"{', '.join(protocol.msi_order)} of protocol {protocol.name} (about {expected} nm); "
            "save the bands in this order"
        )
