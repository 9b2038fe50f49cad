"""Images of one fusion: LR-HSI, MSI and reference, read from files and checked for a network.

Legend: S bands, M MSI bands, N wavelengths of a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feinfn.data.images import Image, image_of
from feinfn.data.readers.array import Options
from feinfn.data.readers.formats import open_file
from feinfn.errors import UserError
from feinfn.protocols.response import read_srf
from feinfn.protocols.simulate import Protocol

BEYOND = 0.25
"""Distance by which noise and glints may leave [0, 1]; other units exceed it by far."""

ImageFile = tuple[Path, Options]
"""A file and the options to read an image of it with."""


@dataclass(frozen=True)
class FusionImages:
    """The images of one fusion as the network takes them, float32 and about in [0, 1]."""

    hsi: Image
    """The LR-HSI, [S, h, w]."""
    msi: Image
    """The MSI, [M, H, W]."""
    reference: Image | None = None
    """The HR-HSI, [S, H, W], if there is one to compare with."""


def read_images(
    hsi: ImageFile,
    msi: ImageFile,
    reference: ImageFile | None,
    bands: tuple[int, int],
    protocol: Protocol | None,
) -> FusionImages:
    """Return the images of a fusion by a network of `bands` HSI and MSI bands under a protocol.

    Without a full scale of its own, MSI and reference take that of an LR-HSI of the same integer
    type. Raises `UserError` if an image does not fit the network, or the reference does not fit the
    MSI.
    """
    hsi_image = _read(hsi, bands[0], "LR-HSI")
    msi_image = _read(sharing_scale(msi, hsi), bands[1], "MSI")
    check_msi_order(msi_image, protocol)
    if reference is None:
        return FusionImages(hsi_image, msi_image)
    reference_image = _read(sharing_scale(reference, hsi), bands[0], "reference")
    size, expected = reference_image.values_SHW.shape[1:], msi_image.values_SHW.shape[1:]
    if size != expected:
        raise UserError(
            f"{reference[0]}: found {size} rows and columns, expected {expected}, as {msi[0]} has; "
            "choose another reference"
        )
    return FusionImages(hsi_image, msi_image, reference_image)


def sharing_scale(file: ImageFile, other: ImageFile) -> ImageFile:
    """Return a file with the full scale that was told for another of the same integer type.

    Floats and other integers have their own units, and so has a file that states its full scale or
    scales.
    """
    path, options = file
    told = other[1].full_scale
    if told is None or options.full_scale is not None:
        return file
    array, kin = (open_file(p).array(o, default_axis=0) for p, o in (file, other))
    kinds = {a.dtype.newbyteorder("=") for a in (array, kin)}
    states = array.full_scale or any(x != 1 for x in array.scale) or any(array.offset)
    if states or len(kinds) > 1 or not np.issubdtype(kinds.pop(), np.integer):
        return file
    return path, replace(options, full_scale=told)


def _read(file: ImageFile, bands: int, what: str) -> Image:
    """Return a float32 image of so many bands.

    Raises `UserError` for another number of bands, and for values far outside [0, 1].
    """
    path, options = file
    image = image_of(open_file(path).array(options, default_axis=0), options)
    values = np.ascontiguousarray(image.values_SHW, dtype=np.float32)
    if len(values) != bands:
        raise UserError(
            f"{path}: found shape {values.shape} [bands, rows, columns], expected {bands} "
            f"bands of the {what}, as the network has; axes are [rows, columns, bands] in .mat "
            "files alone, otherwise name the axis of the bands (--bands-axis), or use a network of "
            "these bands"
        )
    remedy = f"say which stored number means 1 (--{options.prefix}full-scale)"
    check_unit(values, str(path), f" in the {what}", remedy)
    return replace(image, values_SHW=values)


def check_unit(values: np.ndarray, where: str, what: str, remedy: str) -> None:
    """Raise `UserError` for values far outside [0, 1], and for NaN."""
    low, high = float(values.min()), float(values.max())
    if not (low >= -BEYOND and high <= 1 + BEYOND):
        raise UserError(
            f"{where}: found values from {low:g} to {high:g}{what}, expected [0, 1]; {remedy}"
        )


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


def check_msi_order(image: Image, protocol: Protocol | None) -> None:
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
            f"{image.path}: found MSI bands at {found} nm, expected them in the order "
            f"{', '.join(protocol.msi_order)} of protocol {protocol.name} (about {expected} nm); "
            "save the bands in this order"
        )
