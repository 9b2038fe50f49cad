"""Simulation: make LR-HSI, MSI and the upsampled LR-HSI (LMS) from a scene.

Legend: B batch, S bands, M MSI bands, h w LR size, H W HR size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from feinfn.errors import UserError
from feinfn.protocols.operators import (
    PAD_MODES,
    Blur,
    Chain,
    Decimate,
    Noise,
    Operator,
    Quantise,
    SpectralResponse,
)
from feinfn.protocols.protocol import Protocol, check_ratio


@dataclass(frozen=True)
class Inputs:
    """The three input images of a fusion, [B, ...], on one device."""

    msi_BMHW: Tensor
    lms_BSHW: Tensor
    lr_hsi_BShw: Tensor

    def inputs(self) -> tuple[Tensor, ...]:
        """Return (MSI, LMS, LR-HSI), the arguments of a network's forward."""
        return self.msi_BMHW, self.lms_BSHW, self.lr_hsi_BShw


@dataclass(frozen=True)
class Pair(Inputs):
    """Inputs and the reference from which they were simulated."""

    reference_BSHW: Tensor


@dataclass(frozen=True)
class Batch(Pair):
    """Patches cut from scenes, with the scenes' bases in place of the patches' own."""

    base_BSHW: Tensor
    """Bases; `lms_BSHW` is then the interpolation of `Sensor.start`."""
    base_error_B: Tensor
    """Mean absolute errors of the bases over whole scenes; NaN if no loss needs them."""

    def inputs(self) -> tuple[Tensor, ...]:
        """Return (MSI, interpolated LR-HSI, LR-HSI, base), the arguments of a network's forward."""
        return *super().inputs(), self.base_BSHW


def spatial(protocol: Protocol) -> Chain:
    """Return blur and sampling, the linear operator from HR to LR pixels."""
    sample = Decimate(protocol.ratio, protocol.phase_px, protocol.phase_px)
    if protocol.psf == "delta":
        return Chain((sample,))
    if protocol.psf == "box":
        return Chain((Blur.box(protocol.psf_px, protocol.psf_border), sample))
    assert protocol.psf_sigma_px is not None
    blur = Blur.gaussian(protocol.psf_px, protocol.psf_sigma_px, protocol.psf_border)
    return Chain((blur, sample))


def axis_matrix(size: int, protocol: Protocol) -> Tensor:
    """Return PSF and sampling along one axis of `size` HR pixels, float64 [h, H].

    Degrading is this matrix for rows and for columns: D x = rows x cols'. Raises `UserError` if the
    image is too small for the border.
    """
    taps_T, mode = torch.ones(1, dtype=torch.float64), "constant"
    for one in spatial(protocol).operators:
        if isinstance(one, Blur):
            one.check_fits((size, size))
            taps_T, mode = one.kernel.double().flip(0), PAD_MODES[one.border]
    count = len(taps_T)
    pads = [(count - 1) // 2, count // 2]
    # Pixels are numbered from 1; column 0 collects the zeros of a zero border.
    pixels = F.pad(torch.arange(1.0, size + 1)[None, None], pads, mode=mode)[0, 0].long()
    windows_hT = pixels.unfold(0, count, 1)[protocol.phase_px :: protocol.ratio]
    matrix_hH = torch.zeros(len(windows_hT), size + 1, dtype=torch.float64)
    return matrix_hH.scatter_add(1, windows_hT, taps_T.expand(len(windows_hT), -1))[:, 1:]


def lr_pixels_with_data(protocol: Protocol, valid_HW: np.ndarray | None) -> np.ndarray | None:
    """Return the LR pixels [h, w] whose PSF touches pixels with data alone.

    None stands for an image without gaps.
    """
    if valid_HW is None:
        return None
    count = [
        Blur((x.kernel != 0).double(), x.border) if isinstance(x, Blur) else x
        for x in spatial(protocol).operators
    ]
    missing = Chain(tuple(count))(torch.from_numpy(~valid_HW).double()[None, None])
    return (missing[0, 0] < 0.5).numpy()


def simulate(
    reference_BSHW: Tensor,
    wavelengths_nm: np.ndarray | None,
    protocol: Protocol,
    what: str = "scene",
    *,
    msi_BMHW: Tensor | None = None,
    noise_seed: int | Sequence[int] = 0,
    valid_HW: np.ndarray | None = None,
) -> Pair:
    """Return the inputs that a protocol makes of reference cubes [B, S, H, W] in [0, 1].

    `msi_BMHW` is the measured MSI on the reference's grid, read only by protocols that need it.
    Image b of the batch draws its noise from entry b of `noise_seed`; an integer stands for seed,
    seed + 1, ... Noise may take LR-HSI and MSI out of [0, 1] unless they are rounded to bits; LMS
    is clipped to it. Pixels without data (`valid_HW` is False) do not count in the noise's power.

    Raises `UserError` if the size is not a multiple of the ratio, or bands or MSI do not fit.
    """
    batch, bands, height, width = reference_BSHW.shape
    ratio = protocol.ratio
    check_ratio((height // ratio, width // ratio), (height, width), ratio, what)
    if protocol.srf == "measured":
        msi = _measured(msi_BMHW, (batch, len(protocol.msi_order), height, width), protocol, what)
    else:
        response_MS = torch.from_numpy(protocol.response(bands, wavelengths_nm))
        msi = SpectralResponse(response_MS)(reference_BSHW)
    seeds = range(noise_seed, noise_seed + batch) if isinstance(noise_seed, int) else noise_seed
    # Even and odd seeds, so that LR-HSI and MSI never share noise.
    lr_valid_hw = lr_pixels_with_data(protocol, valid_HW)
    hsi_sensor = _sensor(protocol.hsi_snr_db, protocol.lr_bits, [2 * s for s in seeds], lr_valid_hw)
    msi_sensor = _sensor(
        protocol.msi_snr_db, protocol.msi_bits, [2 * s + 1 for s in seeds], valid_HW
    )
    lr_hsi, msi = hsi_sensor(spatial(protocol)(reference_BSHW)), msi_sensor(msi)
    return Pair(msi, upsample(lr_hsi, protocol), lr_hsi, reference_BSHW)


def upsample(lr_hsi_BShw: Tensor, protocol: Protocol) -> Tensor:
    """Return the LMS of an LR-HSI, clipped to [0, 1]."""
    return enlarge(lr_hsi_BShw, protocol.ratio, protocol.upsampling)


def enlarge(lr_hsi_BShw: Tensor, ratio: int, upsampling: str) -> Tensor:
    """Return an LR-HSI with `ratio` times the rows and columns, clipped to [0, 1].

    `upsampling` is one of `SUPPORT_PX`.
    """
    size = [ratio * n for n in lr_hsi_BShw.shape[-2:]]
    # torch refuses align_corners, even False, for the mode that ignores it.
    corners = None if upsampling == "nearest" else False
    lms = F.interpolate(lr_hsi_BShw, size=size, mode=upsampling, align_corners=corners)
    return lms.clamp(0, 1)


def _measured(
    msi_BMHW: Tensor | None, shape: tuple[int, ...], protocol: Protocol, what: str
) -> Tensor:
    shown = "none" if msi_BMHW is None else f"shape {list(msi_BMHW.shape)}"
    if msi_BMHW is None or tuple(msi_BMHW.shape) != shape:
        raise UserError(
            f"{what}: found {shown} as measured MSI, expected shape {list(shape)}, which protocol "
            f"{protocol.name} needs; use a scene that has one or a protocol with a response"
        )
    return msi_BMHW


def _sensor(
    snr_db: float | None, bits: int | None, seeds: list[int], valid_HW: np.ndarray | None
) -> Chain:
    steps: list[Operator] = []
    if snr_db is not None:
        valid = None if valid_HW is None else torch.from_numpy(valid_HW)
        steps.append(Noise(snr_db, tuple(seeds), valid))
    if bits is not None:
        steps.append(Quantise(bits))
    return Chain(tuple(steps))
