"""Training losses.

Legend: B batch, S bands, H W rows and columns.
"""

import torch
from torch import Tensor

from feinfn.config import Loss, TrainConfig
from feinfn.protocols.filters import filter_bands, filter_window, gaussian_taps, ssim_map

TAPS = gaussian_taps(11, 1.5, torch.float32)
"""Taps of the released SSIM window."""


def smooth(x_BSHW: Tensor) -> Tensor:
    """Average over the released 11x11 window of sigma 1.5, zero border, same size.

    The released window is a float32 product of taps, in float64 runs too. There it is not exactly
    separable, and other rounding shows after a few training steps.
    """
    if x_BSHW.dtype == torch.float64:
        return filter_window(x_BSHW, torch.outer(TAPS, TAPS), padding=5)
    return filter_bands(x_BSHW, TAPS, padding=5)


def pixel_loss(
    kind: Loss, fused_BSHW: Tensor, reference_BSHW: Tensor, base_error_B: Tensor | None = None
) -> Tensor:
    """Return the mean of |error|, error^2, sqrt(error^2 + 1e-6) or |error| / error of the base."""
    error = fused_BSHW - reference_BSHW
    if kind == "l1":
        return error.abs().mean()
    if kind == "relative":
        assert base_error_B is not None, "patches state the errors of their bases"
        # The floor is far below the rounding of stored scenes.
        return (error.abs().mean(dim=(1, 2, 3)) / base_error_B.clamp_min(1e-6)).mean()
    square = error.square()
    return square.mean() if kind == "mse" else (square + 1e-6).sqrt().mean()


def spectral_angle(fused_BSHW: Tensor, reference_BSHW: Tensor) -> Tensor:
    """Return the mean angle between spectra in radians, with a finite gradient everywhere.

    atan2 of the parts across and along the reference avoids the ends of arccos. The product of
    squared norms is at least 1e-8, which bounds the weight of dark pixels.
    """
    across = (fused_BSHW.square().sum(1) * reference_BSHW.square().sum(1)).clamp_min(1e-8)
    along = (fused_BSHW * reference_BSHW).sum(1)
    return torch.atan2((across - along.square()).clamp_min(1e-12).sqrt(), along).mean()


def training_loss(
    config: TrainConfig,
    fused_BSHW: Tensor,
    reference_BSHW: Tensor,
    base_error_B: Tensor | None = None,
) -> Tensor:
    """Return the loss of a recipe, a scalar, for images in [0, 1]; the fused one is not clipped.

    `base_error_B` are the errors of the bases, which the relative loss needs.

    Released: L1 + 0.1 (1 - SSIM), with SSIM per band, a zero border, and the mean over everything.
    """
    loss = pixel_loss(config.loss, fused_BSHW, reference_BSHW, base_error_B)
    if config.ssim_weight:
        ssim = ssim_map(fused_BSHW, reference_BSHW, smooth, peak=1.0).mean()
        loss = loss + config.ssim_weight * (1 - ssim)
    if config.sam_weight:
        loss = loss + config.sam_weight * spectral_angle(fused_BSHW, reference_BSHW)
    return loss
