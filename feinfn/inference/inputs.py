"""The files of one fusion: LR-HSI, MSI and a reference, checked against what a network expects."""

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
"""How far noise and glints may leave [0, 1]; other units leave it by far."""

PREFIXES = {"LR-HSI": "", "MSI": "msi-", "reference": "reference-"}
"""What the options of a file begin with, by what it is."""

SCALE_FACTOR = "reflectance scale factor"
"""The full scale in an ENVI header."""


def stored_type(path: Path, key: str | None = None) -> np.dtype | None:
    """Return the type of a file's numbers, None where no single array is meant."""
    if is_folder(path):
        files = list(band_files(path)[1].values())
        # The bands of folders of PNGs are read as 16 bits, whatever they have.
        if not files or files[0].suffix.lower() == ".png":
            return np.dtype(np.uint16)
        found = raster_arrays(files[0])
    else:
        found = KINDS[kind_of(path)].arrays(path)
    meant = [
        a.dtype
        for k, a in found.items()
        if k == key or len(found) == 1 or (key is None and len(a.shape) == 3)
    ]
    return np.dtype(meant[0]).newbyteorder("=") if len(meant) == 1 else None


def shared_scale(
    full_scale: float | None, hsi: tuple[Path, str | None], other: tuple[Path, str | None]
) -> float | None:
    """Return the LR-HSI's full scale for a file of integers of the same type, for others None.

    Files are given with the key of their array. Floats and other integers have units of their own,
    as has an ENVI file that states its reflectance scale factor.
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
    """Return an image float32 for a network of so many bands, as `read_image` reads it.

    `what` is one of `PREFIXES`. Raises `UserError` where its bands are others, and for values far
    beyond [0, 1].
    """
    kind = stored_type(path, key)
    known = kind is None or kind in (np.uint8, np.uint16) or not np.issubdtype(kind, np.integer)
    if full_scale is None and not known and not _states_scale(path):
        raise UserError(
            f"{path}: found numbers of type {kind} in the {what}, expected uint8, uint16 or floats "
            f"in [0, 1]; say which stored number means 1 (--{PREFIXES[what]}full-scale)"
        )
    try:
        image = read_image(path, key, full_scale=full_scale, bands_axis=bands_axis)
    except UserError as error:
        # Whoever reads a file does not know that it is one of several.
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
    """Raise `UserError` for values far beyond [0, 1], and for NaN."""
    low, high = float(values.min()), float(values.max())
    if not (low >= -BEYOND and high <= 1 + BEYOND):
        raise UserError(
            f"{where}: found values from {low:g} to {high:g}{what}, expected [0, 1]; {remedy}"
        )


def read_beside(
    path: Path,
    bands: int,
    what: str,
    key: str | None,
    full_scale: float | None,
    bands_axis: int | None,
    hsi: tuple[Path, str | None, float | None],
) -> Image:
    """Return an image of the scene of an LR-HSI as `read_input` does.

    `hsi` is the LR-HSI's file, key and full scale, which is the image's where `shared_scale` says
    so and it is given none of its own.
    """
    if full_scale is None:
        full_scale = shared_scale(hsi[2], hsi[:2], (path, key))
    return read_input(path, bands, what, key, full_scale, bands_axis)


def bands_elsewhere(found_nm: np.ndarray, trained_nm: Sequence[float]) -> str:
    """Return what to say of HSI bands that are not those of a training, nothing where they are.

    They may be half of the training's least band distance apart.
    """
    found, trained = found_nm, np.asarray(trained_nm)
    limit = np.diff(trained).min(initial=np.inf) / 2
    if len(found) == len(trained) and (abs(found - trained) <= limit).all():
        return ""
    return (
        f"found {len(found)} bands from {found.min():g} to {found.max():g} nm, expected the "
        f"{len(trained)} from {trained.min():g} to {trained.max():g} nm of the network's training, "
        f"each within {limit:g} nm; what it makes of others was never tested"
    )


def check_msi_order(image: Image, protocol: Protocol | None, path: Path) -> None:
    """Raise `UserError` where an MSI's wavelengths do not follow the protocol's MSI bands.

    Checks nothing where the file, the protocol or its response says no wavelengths.
    """
    if image.wavelengths_nm is None or protocol is None or protocol.srf == "measured":
        return
    try:
        table = read_srf(protocol.srf)
    except UserError:
        # A response of the user's own, which need not lie where the network is used.
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
