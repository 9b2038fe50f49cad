"""Images of one fusion: LR-HSI, MSI and reference, read from files and checked for a network.

Legend: S bands, M MSI bands, N wavelengths of a table.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from feinfn.data.images import Image, image_of
from feinfn.data.readers.array import Options
from feinfn.data.readers.formats import open_file
from feinfn.errors import UserError
from feinfn.inference.grids import on_the_same_ground, ordered_msi
from feinfn.protocols.protocol import Protocol
from feinfn.region import filled, fused_valid

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
    msi_order: str = ""
    """Sentence about the order of the MSI's bands; empty if only the protocol says it."""

    @cached_property
    def valid(self) -> np.ndarray | None:
        """Pixels of the fused image with data, [H, W], see `fused_valid`; None if all have."""
        size = self.msi.values_SHW.shape[1:]
        return fused_valid(self.msi.valid_HW, self.hsi.valid_HW, size)


def read_images(
    hsi: ImageFile,
    msi: ImageFile,
    reference: ImageFile | None,
    bands: tuple[int, int],
    protocol: Protocol | None,
    msi_bands: Sequence[int] | None = None,
) -> FusionImages:
    """Return the images of a fusion by a network of `bands` HSI and MSI bands under a protocol.

    Without a full scale of its own, MSI and reference take that of an LR-HSI of the same integer
    type. `msi_bands` are the bands of the MSI's file to take, counted from 1; without them its
    names, colours or wavelengths say the order. If files say where they lie, MSI and reference are
    turned as the LR-HSI lies. Pixels without data hold the nearest with data. Raises `UserError` if
    an image does not fit the network or lies elsewhere, or the reference does not fit the MSI.
    """
    hsi_image = _read(hsi, bands[0], "LR-HSI")
    path, options = sharing_scale(msi, hsi)
    array = open_file(path).array(options, default_axis=0)
    array, order = ordered_msi(array, protocol, msi_bands)
    msi_image = _checked(image_of(array, options, False), options, bands[1], "MSI")
    msi_image = on_the_same_ground(msi_image, hsi_image)
    if reference is None:
        return FusionImages(hsi_image, msi_image, None, order)
    reference_image = _read(sharing_scale(reference, hsi), bands[0], "reference")
    reference_image = on_the_same_ground(reference_image, hsi_image)
    size, expected = reference_image.values_SHW.shape[1:], msi_image.values_SHW.shape[1:]
    if size != expected:
        raise UserError(
            f"{reference[0]}: found {size} rows and columns, expected {expected}, as {msi[0]} has; "
            "choose another reference"
        )
    return FusionImages(hsi_image, msi_image, reference_image, order)


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
    """Return a float32 image of so many bands."""
    path, options = file
    image = image_of(open_file(path).array(options, default_axis=0), options)
    return _checked(image, options, bands, what)


def _checked(image: Image, options: Options, bands: int, what: str) -> Image:
    """Return an image as float32, pixels without data filled.

    Raises `UserError` for another number of bands, and for values far outside [0, 1].
    """
    path, values = image.path, np.ascontiguousarray(image.values_SHW, dtype=np.float32)
    if len(values) != bands:
        raise UserError(
            f"{path}: found shape {values.shape} [bands, rows, columns], expected {bands} "
            f"bands of the {what}, as the network has; axes are [rows, columns, bands] in .mat "
            "files alone, otherwise name the axis of the bands (--bands-axis), or use a network of "
            "these bands"
        )
    remedy = f"say which stored number means 1 (--{options.prefix}full-scale)"
    check_unit(values, str(path), f" in the {what}", remedy)
    return replace(image, values_SHW=filled(values, image.valid_HW))


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
