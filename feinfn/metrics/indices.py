"""Indices that every convention shares, of float64 images.

torchmetrics uses the names SCC and UQI for other definitions: its SCC correlates high-pass images
locally, its UQI has an 11x11 Gaussian window. Its MSE, ERGAS and SAM agree with these if no pixel
is black; they stay here because training runs without torchmetrics.

Legend: S bands, H W rows and columns.
"""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from feinfn.protocols.filters import gaussian_taps, ssim_map

FLAT = 3e-14
"""Largest variance of a constant window, relative to its mean square. Rounding leaves up to 4e-15
in a constant window; one step of 16 bits in 32x32 pixels is 2e-13."""


def mse_per_band(fused_SHW: Tensor, reference_SHW: Tensor) -> Tensor:
    """Return the mean squared error of every band, [S]."""
    return ((fused_SHW - reference_SHW) ** 2).mean(dim=(1, 2))


def ergas(fused_SHW: Tensor, reference_SHW: Tensor, ratio: float) -> float:
    """Return (100 / ratio) sqrt(mean over bands of MSE / mean(reference)^2).

    It is inf if a reference band is all zeros, or NaN if the fused band is too.
    """
    mean = reference_SHW.mean(dim=(1, 2))
    relative = mse_per_band(fused_SHW, reference_SHW) / mean**2
    return 100 / ratio * relative.mean().sqrt().item()


def angles(fused_SHW: Tensor, reference_SHW: Tensor, epsilon: float = 0.0) -> Tensor:
    """Return the angle between the two spectra of every pixel in radians, [H, W].

    It is NaN if either spectrum is zero, unless `epsilon` is added to the product of their norms.
    Cosines that rounding takes beyond 1 count as 1.
    """
    squares = (fused_SHW * fused_SHW).sum(0) * (reference_SHW * reference_SHW).sum(0)
    cosine = (fused_SHW * reference_SHW).sum(0) / (squares.sqrt() + epsilon)
    return torch.acos(cosine.clamp(-1, 1))


def window_means(x: Tensor, taps: Sequence[float]) -> Tensor:
    """Return means over windows of [..., H, W], weighted by the outer product of `taps`.

    Only windows inside the image count ('valid' border). On a CPU, shifted sums are many times
    faster than a float64 convolution of one channel.
    """
    for axis in (-2, -1):
        length = x.shape[axis] - len(taps) + 1
        means = torch.zeros_like(x.narrow(axis, 0, length))
        for shift, weight in enumerate(taps):
            means.add_(x.narrow(axis, shift, length), alpha=weight)
        x = means
    return x


def whole_windows(valid_HW: Tensor, side: int) -> Tensor:
    """Return True for every window of `side` pixels inside an image that holds data everywhere."""
    missing = (~valid_HW).double()[None, None]
    return F.max_pool2d(missing, side, stride=1)[0, 0] == 0


def mean_over(x: Tensor, kept: Tensor | None) -> Tensor:
    """Return the mean over the last two axes, or over their kept places; NaN if none is kept."""
    return x.mean(dim=(-2, -1)) if kept is None else x[..., kept].mean(dim=-1)


def ssim_gaussian(
    fused_SHW: Tensor, reference_SHW: Tensor, valid_HW: Tensor | None = None
) -> Tensor:
    """Return the SSIM of every band, [S]: images times 255, 11x11 Gaussian, 'valid' border.

    Windows that touch pixels without data are left out.
    """
    kept = None if valid_HW is None else whole_windows(valid_HW, 11)
    taps = gaussian_taps(11, 1.5).tolist()
    pairs = zip(fused_SHW * 255, reference_SHW * 255, strict=True)
    smooth = partial(window_means, taps=taps)
    return torch.stack(
        [
            mean_over(ssim_map(a[None, None], b[None, None], smooth, peak=255.0)[0, 0], kept)
            for a, b in pairs
        ]
    )


def cc_per_band(fused_SHW: Tensor, reference_SHW: Tensor) -> Tensor:
    """Return the correlation coefficient of every band, [S]; NaN for a constant band."""
    a, b = (x - x.mean(dim=(1, 2), keepdim=True) for x in (fused_SHW, reference_SHW))
    power = (a * a).sum(dim=(1, 2)) * (b * b).sum(dim=(1, 2))
    # Rounding leaves some power in a constant band.
    varies = (a.amax((1, 2)) > a.amin((1, 2))) & (b.amax((1, 2)) > b.amin((1, 2)))
    return torch.where(varies, (a * b).sum(dim=(1, 2)) / power.sqrt(), torch.nan)


def _edges(image_SHW: Tensor) -> Tensor:
    """Return Sobel gradient magnitudes without the outer pixel ring; the border is zero."""
    kernel = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]], dtype=torch.float64)
    both = torch.stack([kernel, kernel.T])[:, None].to(image_SHW.device)
    gradients = F.conv2d(image_SHW[:, None, 1:-1, 1:-1], both, padding=1)
    return gradients.pow(2).sum(1).sqrt()


def scc(fused_SHW: Tensor, reference_SHW: Tensor, valid_HW: Tensor | None = None) -> float:
    """Return sum(F G) / (|F| |G|) of the edges F, G of all bands; NaN for a black image.

    Edges whose 3x3 pixels touch pixels without data are left out.
    """
    a, b = _edges(fused_SHW), _edges(reference_SHW)
    if valid_HW is not None:
        kept = whole_windows(valid_HW, 3)
        a, b = a[:, kept], b[:, kept]
    return ((a * b).sum() / (a.norm() * b.norm())).item()


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
    fused_SHW: Tensor,
    reference_SHW: Tensor,
    window_px: int = 32,
    valid_HW: Tensor | None = None,
) -> Tensor:
    """Return the universal quality index of every band, [S], over box windows at every position.

    Windows that touch pixels without data are left out.
    """
    values, kept = [], None if valid_HW is None else whole_windows(valid_HW, window_px)
    for a, b in zip(fused_SHW, reference_SHW, strict=True):
        stack = torch.stack([a, b, a * a + b * b, a * b])
        quality = universal_quality(*window_means(stack, [1 / window_px] * window_px))
        values.append(mean_over(quality, kept))
    return torch.stack(values)
