"""Indices of sliding windows: SSIM and the universal quality index, made strip by strip.

Legend: S bands, s some of them, H W rows and columns.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from feinfn.metrics.pieces import Image, band_pieces
from feinfn.protocols.filters import gaussian_taps

STRIP_ROWS = 32
"""Rows of windows made at a time on a CPU, or twice a window's side if that is more."""

FLAT = 3e-14
"""Largest variance of a constant window, relative to its mean square. Rounding leaves up to 4e-15
in a constant window; one step of 16 bits in 32x32 pixels is 2e-13."""

Means = Callable[[Tensor], Tensor]
"""Means over windows of the last two axes, of windows inside the image only."""


def weighted_means(x: Tensor, taps: Sequence[float]) -> Tensor:
    """Return means over windows of [..., H, W], weighted by the outer product of `taps`.

    On a CPU, shifted sums are many times faster than a float64 convolution of one channel.
    """
    for axis in (-2, -1):
        length = x.shape[axis] - len(taps) + 1
        means = torch.zeros_like(x.narrow(axis, 0, length))
        for shift, weight in enumerate(taps):
            means.add_(x.narrow(axis, shift, length), alpha=weight)
        x = means
    return x


def box_means(x: Tensor, side: int) -> Tensor:
    """Return means over windows of `side` x `side` pixels of [..., H, W].

    Sums of 1, 2, 4, ... neighbours are doubled, and those that `side` is made of are added.
    """
    area = side * side
    for axis in (-2, -1):
        length, width, before = x.shape[axis] - side + 1, 1, 0
        sums = torch.zeros_like(x.narrow(axis, 0, length))
        while before < side:
            if side & width:
                sums += x.narrow(axis, before, length)
                before += width
            if before < side:
                rest = x.shape[axis] - width
                x = x.narrow(axis, 0, rest) + x.narrow(axis, width, rest)
                width *= 2
        x = sums
    return x / area


def whole_windows(valid_HW: Tensor, side: int) -> Tensor:
    """Return True for every window of `side` pixels inside an image that holds data everywhere."""
    missing = (~valid_HW).double()[None, None]
    return F.max_pool2d(missing, side, stride=1)[0, 0] == 0


def mean_over_windows(
    index: Callable[[Tensor, Tensor], Tensor],
    images: tuple[Image, Image],
    side: int,
    valid_HW: Tensor | None = None,
) -> Tensor:
    """Return the mean of `index` over all windows of `side` pixels inside each band, [S].

    `index` maps some rows of some bands of both images to the values of their windows. Windows that
    touch pixels without data are left out; NaN if none is left.
    """
    kept = None if valid_HW is None else whole_windows(valid_HW, side)
    means = []
    for a, b in band_pieces(*images):
        height = a.shape[1] - side + 1
        step = max(STRIP_ROWS, 2 * side) if a.device.type == "cpu" else height
        strips = (slice(row, min(row + step, height) + side - 1) for row in range(0, height, step))
        values = torch.cat([index(a[:, rows], b[:, rows]) for rows in strips], dim=1)
        means.append(values.mean(dim=(1, 2)) if kept is None else values[:, kept].mean(dim=1))
    return torch.cat(means)


def _moments(a: Tensor, b: Tensor, means: Means) -> tuple[Tensor, ...]:
    """Return the means of a, b, a^2 + b^2 and a b over windows."""
    return means(torch.stack([a, b, a * a + b * b, a * b])).unbind()


def _similarity(a: Tensor, b: Tensor, means: Means, peak: float, correction: float = 1.0) -> Tensor:
    """Return the SSIM of every window (Wang et al., IEEE TIP 2004), K = (0.01, 0.03).

    `correction` multiplies variances and covariance.
    """
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_a, mean_b, squares, product = _moments(a, b, means)
    mean_product, mean_squares = mean_a * mean_b, mean_a**2 + mean_b**2
    luminance = (2 * mean_product + c1) / (mean_squares + c1)
    covariance, variances = product - mean_product, squares - mean_squares
    return luminance * (2 * correction * covariance + c2) / (correction * variances + c2)


def ssim_gaussian(fused_SHW: Image, reference_SHW: Image, valid_HW: Tensor | None = None) -> Tensor:
    """Return the SSIM of every band, [S]: images times 255, 11x11 Gaussian, biased variances."""
    means = partial(weighted_means, taps=gaussian_taps(11, 1.5).tolist())

    def index(a: Tensor, b: Tensor) -> Tensor:
        return _similarity(a * 255, b * 255, means, peak=255.0)

    return mean_over_windows(index, (fused_SHW, reference_SHW), 11, valid_HW)


def ssim_uniform(fused_SHW: Image, reference_SHW: Image, valid_HW: Tensor | None = None) -> Tensor:
    """Return the SSIM of every band, [S]: scikit-image's, 7x7 means and sample covariance."""
    index = partial(_similarity, means=partial(box_means, side=7), peak=1.0, correction=49 / 48)
    return mean_over_windows(index, (fused_SHW, reference_SHW), 7, valid_HW)


def universal_quality(mean_a: Tensor, mean_b: Tensor, squares: Tensor, product: Tensor) -> Tensor:
    """Return the universal quality index (Wang and Bovik, IEEE SPL 2002) from window means.

    `squares` is mean(a^2) + mean(b^2), `product` is mean(a b). If both windows are constant, only
    the means count; two windows of zeros have quality 1.
    """
    means = mean_a**2 + mean_b**2
    spread = squares - means
    luminance = torch.where(means > 0, 2 * mean_a * mean_b / means, 1.0)
    contrast = 2 * (product - mean_a * mean_b) / spread
    return torch.where(spread > FLAT * squares, luminance * contrast, luminance)


def uiqi_per_band(
    fused_SHW: Image, reference_SHW: Image, valid_HW: Tensor | None = None, window_px: int = 32
) -> Tensor:
    """Return the universal quality index of every band, [S], over box windows at every position.

    Windows that touch pixels without data are left out.
    """
    means = partial(box_means, side=window_px)

    def index(a: Tensor, b: Tensor) -> Tensor:
        return universal_quality(*_moments(a, b, means))

    return mean_over_windows(index, (fused_SHW, reference_SHW), window_px, valid_HW)
