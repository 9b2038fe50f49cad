"""The images of one fusion, read from files and checked against a network and each other."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feinfn.data.images import Image
from feinfn.errors import UserError
from feinfn.inference.apply import Trained
from feinfn.inference.inputs import check_msi_order, read_companion, read_input


@dataclass(frozen=True)
class InputFile:
    """One image's file, the array in it, and the stored number that means 1."""

    path: Path
    key: str | None
    full_scale: float | None


@dataclass(frozen=True, kw_only=True)
class FusionFiles:
    """The files of one fusion."""

    hsi: InputFile
    msi: InputFile
    reference: InputFile | None
    bands_axis: int | None


@dataclass(frozen=True)
class FusionImages:
    """The images of one fusion as the network takes them."""

    hsi: Image
    msi: Image
    reference: Image | None

    def named(self, files: FusionFiles) -> list[tuple[Path, Image]]:
        """Return the images with their paths: LR-HSI, MSI and, if there is one, the reference."""
        images = [(files.hsi.path, self.hsi), (files.msi.path, self.msi)]
        if files.reference and self.reference:
            images.append((files.reference.path, self.reference))
        return images


def read_images(files: FusionFiles, trained: Trained) -> FusionImages:
    """Return the images of a fusion.

    Raises `UserError` if one does not fit the network, or the reference does not fit the MSI.
    """
    hsi_bands, msi_bands = trained.bands
    hsi, msi, axis = files.hsi, files.msi, files.bands_axis
    hsi_image = read_input(hsi.path, hsi_bands, "LR-HSI", hsi.key, hsi.full_scale, axis)
    beside = (hsi.path, hsi.key, hsi.full_scale)
    msi_image = read_companion(msi.path, msi_bands, "MSI", msi.key, msi.full_scale, axis, beside)
    check_msi_order(msi_image, trained.protocol, msi.path)
    if files.reference is None:
        return FusionImages(hsi_image, msi_image, None)
    path, key, scale = files.reference.path, files.reference.key, files.reference.full_scale
    reference = read_companion(path, hsi_bands, "reference", key, scale, axis, beside)
    size, expected = reference.values_SHW.shape[1:], msi_image.values_SHW.shape[1:]
    if size != expected:
        raise UserError(
            f"{path}: found {size} rows and columns, expected {expected}, as {msi.path} has; "
            "choose another reference"
        )
    return FusionImages(hsi_image, msi_image, reference)


def band_centres(hsi: Image, path: Path, option_nm: np.ndarray | None) -> np.ndarray | None:
    """Return the LR-HSI's band centres: those of the option, else those of its file."""
    nm = hsi.wavelengths_nm if option_nm is None else option_nm
    bands = len(hsi.values_SHW)
    if nm is not None and len(nm) != bands:
        raise UserError(
            f"--wavelengths: found {len(nm)} of them, expected {bands}, one a band of {path}"
        )
    return nm
