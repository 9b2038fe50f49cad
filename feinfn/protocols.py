"""Protocols: how LR-HSI, MSI and the upsampled LR-HSI are simulated from a scene.

Legend: B batch, S bands, M MSI bands, h w LR size, H W HR size.
"""

from dataclasses import asdict, dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from feinfn.errors import UserError
from feinfn.filters import filter_bands, gaussian_taps


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """A complete recipe for the inputs; every field but the texts changes the numbers."""

    name: str
    ratio: int
    """HR pixels per LR pixel along each axis."""
    psf_px: int
    """Side of the Gaussian PSF in HR pixels."""
    psf_sigma_px: float
    """Its standard deviation in HR pixels."""
    psf_border: str
    """How the blur continues the image (a mode of torch.nn.functional.pad)."""
    phase_px: int
    """HR row and column that becomes LR row and column 0."""
    srf: str
    """Spectral response table under feinfn/data/srf."""
    msi_order: tuple[str, ...]
    """Columns of the table that become MSI bands, in this order."""
    upsampling: str
    """Interpolation from LR-HSI to LMS (torch, align_corners=False)."""
    about: str
    source: str

    def definition(self) -> dict[str, Any]:
        """Return the fields that change numbers: the protocol's part of a run key."""
        return {k: v for k, v in asdict(self).items() if k not in ("about", "source")}


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in [
        Protocol(
            name="cave_x4",
            ratio=4,
            psf_px=3,
            psf_sigma_px=0.5,
            psf_border="reflect",
            phase_px=2,
            srf="nikon_d700_akhtar_norm",
            msi_order=("B", "G", "R"),
            upsampling="bicubic",
            about="CAVE at ratio 4 as in the papers FeINFN compares with: 3x3 Gaussian, sigma 0.5, "
            "every 4th pixel. Inferred, not stated anywhere: rows and columns 2, 6, 10, ... (what "
            "MATLAB's imresize 'nearest' picks, and next to the cell's centre at 1.5), mirrored "
            "border, the D700 table of Akhtar et al. (rows normalised), MSI stored B, G, R, LMS "
            "clipped to [0, 1].",
            source="descriptions of the prepared CAVE files of the FeINFN line",
        )
    ]
}


def srf_matrix(protocol: Protocol, wavelengths_nm: np.ndarray | None) -> Tensor:
    """Return the spectral response [M, S] on a scene's bands, each row summing to 1, float64.

    The table is interpolated linearly; raises `UserError` for bands outside its range.
    """
    if wavelengths_nm is None:
        raise UserError(
            f"protocol {protocol.name}: the scene has no wavelengths, but its response table is by "
            "wavelength; name the scene's wavelengths or use a protocol with a matrix"
        )
    text = files("feinfn").joinpath(f"data/srf/{protocol.srf}.csv").read_text()
    header, *lines = text.strip().splitlines()
    columns = header.split(",")
    table = np.array([[float(v) for v in line.split(",")] for line in lines])
    grid = table[:, 0]
    low, high = wavelengths_nm.min(), wavelengths_nm.max()
    if not (low >= grid[0] and high <= grid[-1]):
        raise UserError(
            f"protocol {protocol.name}: the scene's bands span {low:g} to {high:g} nm, but the "
            f"response table {protocol.srf} covers {grid[0]:g} to {grid[-1]:g} nm; drop the bands "
            "outside or use a protocol with another table"
        )
    rows = [np.interp(wavelengths_nm, grid, table[:, columns.index(c)]) for c in protocol.msi_order]
    matrix = np.stack(rows)
    for name, total in zip(protocol.msi_order, matrix.sum(axis=1), strict=True):
        if total <= 0:
            raise UserError(
                f"protocol {protocol.name}: MSI band {name} sees nothing of the scene's bands from "
                f"{low:g} to {high:g} nm; use scenes that cover it or another protocol"
            )
    return torch.from_numpy(matrix / matrix.sum(axis=1, keepdims=True))


@dataclass(frozen=True)
class Pair:
    """The inputs of one fusion, [B, ...] on one device, and the reference they came from."""

    msi_BMHW: Tensor
    lms_BSHW: Tensor
    lr_hsi_BShw: Tensor
    reference_BSHW: Tensor

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return (MSI, LMS, LR-HSI), the arguments of a network's forward."""
        return self.msi_BMHW, self.lms_BSHW, self.lr_hsi_BShw


def check_ratio(lr_size: tuple[int, ...], hr_size: tuple[int, ...], ratio: int, what: str) -> None:
    """Raise `UserError` unless HR size = ratio x LR size."""
    expected = tuple(ratio * n for n in lr_size)
    if tuple(hr_size) != expected:
        raise UserError(
            f"{what}: found HR size {hr_size[0]}x{hr_size[1]} with LR size "
            f"{lr_size[0]}x{lr_size[1]}, expected HR = {ratio} x LR; crop the scene to "
            f"{expected[0]}x{expected[1]} or use a protocol of another ratio"
        )


def simulate(
    reference_BSHW: Tensor,
    wavelengths_nm: np.ndarray | None,
    protocol: Protocol,
    what: str = "scene",
) -> Pair:
    """Return the inputs that a protocol makes of reference cubes [B, S, H, W] in [0, 1].

    Raises `UserError` where the size is no multiple of the ratio or the bands do not fit the SRF.
    """
    height, width = reference_BSHW.shape[-2:]
    ratio, half = protocol.ratio, protocol.psf_px // 2
    check_ratio((height // ratio, width // ratio), (height, width), ratio, what)
    padded = F.pad(reference_BSHW, (half, half, half, half), mode=protocol.psf_border)
    blurred = filter_bands(padded, gaussian_taps(protocol.psf_px, protocol.psf_sigma_px))
    lr_hsi = blurred[..., protocol.phase_px :: ratio, protocol.phase_px :: ratio].contiguous()
    response = srf_matrix(protocol, wavelengths_nm).to(reference_BSHW)
    msi = torch.einsum("ms,bshw->bmhw", response, reference_BSHW).contiguous()
    lms = F.interpolate(
        lr_hsi, size=(height, width), mode=protocol.upsampling, align_corners=False
    ).clamp(0, 1)
    return Pair(msi, lms, lr_hsi, reference_BSHW)
