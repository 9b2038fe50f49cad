"""The released training loss."""

import torch
from torch import Tensor

from feinfn.filters import filter_bands, filter_window, gaussian_taps, ssim_map

TAPS = gaussian_taps(11, 1.5, torch.float32)


def smooth(x_BSHW: Tensor) -> Tensor:
    """Average over the released 11x11 window of sigma 1.5 with a zero border, same size.

    The released window is a float32 product of taps, in float64 runs too: there it is not exactly
    separable, and rounding it differently shows after a few training steps.
    """
    if x_BSHW.dtype == torch.float64:
        return filter_window(x_BSHW, torch.outer(TAPS, TAPS), padding=5)
    return filter_bands(x_BSHW, TAPS, padding=5)


def l1_ssim(fused_BSHW: Tensor, reference_BSHW: Tensor, ssim_weight: float) -> Tensor:
    """Return L1 + ssim_weight (1 - SSIM), scalar; images in [0, 1], the fused one not clipped.

    SSIM per band with a zero border, averaged over everything (released recipe: weight 0.1).
    """
    l1 = (fused_BSHW - reference_BSHW).abs().mean()
    ssim = ssim_map(fused_BSHW, reference_BSHW, smooth, peak=1.0).mean()
    return l1 + ssim_weight * (1 - ssim)
