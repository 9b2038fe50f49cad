"""Separable Gaussian filters, shared by PSFs and SSIM.

Legend: B batch, S bands, H W rows and columns.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

MATMUL_SIDE = 128
"""Longest image side, in pixels, that is filtered by a banded matrix product. On a CPU it is as
fast as a convolution at training sizes and slower for large images."""

MATMUL_SIDE_FLOAT64 = 512
"""The same limit for float64, for which a convolution is slow and copies the image once per tap."""


def gaussian_taps(size: int, sigma_px: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return `size` samples of a Gaussian centred on the middle tap, [size], summing to 1."""
    x = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    taps = torch.exp(-(x**2) / (2 * sigma_px**2)).to(dtype)
    return taps / taps.sum()


def filter_matrix(size: int, taps: Tensor, padding: int) -> Tensor:
    """Return the 1-D filter as a banded matrix [size + 2 padding - len(taps) + 1, size]."""
    out = size + 2 * padding - len(taps) + 1
    shift = torch.arange(size) - torch.arange(out)[:, None] + padding
    inside = (shift >= 0) & (shift < len(taps))
    return torch.where(inside, taps[shift.clamp(0, len(taps) - 1)], 0.0)


def filter_bands(x_BSHW: Tensor, taps: Tensor, padding: int = 0) -> Tensor:
    """Filter every band with the outer product of `taps`; `padding` zeros on every side."""
    height, width = x_BSHW.shape[-2:]
    longest = MATMUL_SIDE_FLOAT64 if x_BSHW.dtype == torch.float64 else MATMUL_SIDE
    if max(height, width) <= longest:
        rows = filter_matrix(height, taps, padding).to(x_BSHW)
        cols = filter_matrix(width, taps, padding).to(x_BSHW)
        return rows @ x_BSHW @ cols.T
    bands, taps = x_BSHW.shape[1], taps.to(x_BSHW)
    # One group per band: on a CPU some 20 times faster than a batch of images of one channel.
    column, row = taps.view(1, 1, -1, 1), taps.view(1, 1, 1, -1)
    x = F.conv2d(x_BSHW, column.expand(bands, 1, -1, 1), padding=(padding, 0), groups=bands)
    return F.conv2d(x, row.expand(bands, 1, 1, -1), padding=(0, padding), groups=bands)


def filter_window(x_BSHW: Tensor, window: Tensor, padding: int) -> Tensor:
    """Filter every band with a 2-D window, separable or not; `padding` zeros on every side."""
    bands = x_BSHW.shape[1]
    weight = window.to(x_BSHW).expand(bands, 1, *window.shape)
    return F.conv2d(x_BSHW, weight, padding=padding, groups=bands)


def ssim_map(
    a_BSHW: Tensor, b_BSHW: Tensor, smooth: Callable[[Tensor], Tensor], peak: float
) -> Tensor:
    """Return the SSIM map of every band (Wang et al., IEEE TIP 2004).

    `smooth` averages over the window; K = (0.01, 0.03), biased variances. The map has the size of
    the smoothed image.
    """
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    # Apart, because a reference needs no backward pass.
    mu_b, bb = smooth(torch.cat([b_BSHW, b_BSHW**2])).chunk(2)
    mu_a, aa, ab = smooth(torch.cat([a_BSHW, a_BSHW**2, a_BSHW * b_BSHW])).chunk(3)
    var_sum = aa - mu_a**2 + bb - mu_b**2
    covariance = ab - mu_a * mu_b
    luminance = (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
    return luminance * (2 * covariance + c2) / (var_sum + c2)
