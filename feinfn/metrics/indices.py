"""Indices of pixels and edges that every convention shares, of float64 images.

torchmetrics uses the names SCC and UQI for other definitions: its SCC correlates high-pass images
locally, its UQI has an 11x11 Gaussian window. Its MSE, ERGAS and SAM agree with these if no pixel
is black; they stay here because training runs without torchmetrics.

Legend: S bands, s some of them, H W rows and columns. `valid_HW` is False for pixels without data,
which are left out.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from feinfn.metrics.pieces import Image, band_pieces, row_pieces
from feinfn.metrics.windows import whole_windows


def mse_per_band(fused_SHW: Image, reference_SHW: Image, valid_HW: Tensor | None = None) -> Tensor:
    """Return the mean squared error of every band, [S]."""
    pieces = band_pieces(fused_SHW, reference_SHW, valid_HW=valid_HW)
    return torch.cat([((a - b) ** 2).mean(dim=(1, 2)) for a, b in pieces])


def reference_means(_: Image, reference_SHW: Image, valid_HW: Tensor | None = None) -> Tensor:
    """Return the mean of every band of the reference, [S]."""
    pieces = band_pieces(reference_SHW, valid_HW=valid_HW)
    return torch.cat([x.mean(dim=(1, 2)) for (x,) in pieces])


def reference_maximum(_: Image, reference_SHW: Image, valid_HW: Tensor | None = None) -> Tensor:
    """Return the maximum of the reference, a scalar."""
    pieces = band_pieces(reference_SHW, valid_HW=valid_HW)
    return torch.stack([x.max() for (x,) in pieces]).max()


def products(
    fused_SHW: Image, reference_SHW: Image, valid_HW: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the product of the two spectra of every pixel and that of their norms, both [H, W].

    The first is NaN for pixels without data.
    """
    pieces = [
        ((a * b).sum(0), ((a * a).sum(0) * (b * b).sum(0)).sqrt())
        for a, b in row_pieces(fused_SHW, reference_SHW)
    ]
    product_HW, norms_HW = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return _masked(product_HW, valid_HW), norms_HW


def mean_error(fused_SHW: Image, reference_SHW: Image, valid_HW: Tensor | None = None) -> Tensor:
    """Return the absolute error of every pixel averaged over bands, [H, W]; NaN without data."""
    pieces = row_pieces(fused_SHW, reference_SHW)
    return _masked(torch.cat([(a - b).abs().mean(0) for a, b in pieces]), valid_HW)


def _masked(map_HW: Tensor, valid_HW: Tensor | None) -> Tensor:
    return map_HW if valid_HW is None else map_HW.masked_fill(~valid_HW, torch.nan)


def cc_per_band(fused_SHW: Image, reference_SHW: Image, valid_HW: Tensor | None = None) -> Tensor:
    """Return the correlation coefficient of every band, [S]; NaN for a constant band."""
    return torch.cat(
        [_correlation(a, b) for a, b in band_pieces(fused_SHW, reference_SHW, valid_HW=valid_HW)]
    )


def _correlation(a_sHW: Tensor, b_sHW: Tensor) -> Tensor:
    a, b = (x - x.mean(dim=(1, 2), keepdim=True) for x in (a_sHW, b_sHW))
    power = (a * a).sum(dim=(1, 2)) * (b * b).sum(dim=(1, 2))
    # Rounding leaves some power in a constant band.
    varies = (a.amax((1, 2)) > a.amin((1, 2))) & (b.amax((1, 2)) > b.amin((1, 2)))
    return torch.where(varies, (a * b).sum(dim=(1, 2)) / power.sqrt(), torch.nan)


def _edges(image_sHW: Tensor) -> Tensor:
    """Return Sobel gradient magnitudes without the outer pixel ring; the border is zero."""
    x = F.pad(image_sHW[:, 1:-1, 1:-1], (1, 1, 1, 1))
    squares = torch.zeros_like(image_sHW[:, 1:-1, 1:-1])
    for along, across in ((1, 2), (2, 1)):
        size = x.shape[along] - 2
        step = x.narrow(along, 0, size) - x.narrow(along, 2, size)
        size = x.shape[across] - 2
        smooth = step.narrow(across, 0, size) + step.narrow(across, 2, size)
        squares += smooth.add_(step.narrow(across, 1, size), alpha=2).square_()
    return squares.sqrt_()


def scc(fused_SHW: Image, reference_SHW: Image, valid_HW: Tensor | None = None) -> float:
    """Return sum(F G) / (|F| |G|) of the edges F, G of all bands; NaN for a black image.

    Edges whose 3x3 pixels touch pixels without data are left out.
    """
    kept = slice(None) if valid_HW is None else whole_windows(valid_HW, 3)
    sums = []
    for a, b in band_pieces(fused_SHW, reference_SHW):
        f, g = _edges(a)[:, kept], _edges(b)[:, kept]
        sums.append(torch.stack([(f * g).sum(), (f * f).sum(), (g * g).sum()]))
    product, power_f, power_g = torch.stack(sums).sum(0)
    return (product / (power_f * power_g).sqrt()).item()
