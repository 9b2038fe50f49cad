"""Radial frequency bands of images, and similarity of two spectra band by band.

Frequency is sqrt(fx^2 + fy^2) in cycles per pixel. R bands of equal width reach from 0 to the
Nyquist frequency 1/2, and the last band also holds the corners. Frequency zero, the mean, is left
out.

Legend: C channels, H W image size, N angles, R bands.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from feinfn.fields import Count, check

CHANNELS = 16
"""Channels transformed at a time."""


def radial_bands(size_HW: tuple[int, int], bands: int) -> Tensor:
    """Return the band of every bin of `torch.fft.fft2`, int64 [H, W]; -1 for frequency zero."""
    check("bands", bands, Count)
    fy, fx = (torch.fft.fftfreq(n, dtype=torch.float64) for n in size_HW)
    radius_HW = torch.hypot(fy[:, None], fx)
    # Rounding may take the product just below a whole number.
    index = (2 * bands * radius_HW + 1e-9).floor().long().clamp(max=bands - 1)
    index[0, 0] = -1
    return index


def band_centres(bands: int) -> np.ndarray:
    """Return the middle of every band in cycles per pixel, [R]."""
    return (np.arange(bands) + 0.5) / (2 * bands)


def power(x_CHW: Tensor, bands: int) -> np.ndarray:
    """Return the mean power per bin of every band, summed over channels, float64 [R].

    The power of a bin is |DFT|^2 / (H W)^2, so the sum over all bins is the variance. A band
    without bins is NaN.
    """
    size = (x_CHW.shape[1], x_CHW.shape[2])
    total_HW = torch.zeros(size, dtype=torch.float64)
    for part in x_CHW.detach().split(CHANNELS):
        total_HW += torch.fft.fft2(part.double(), norm="forward").abs().square().sum(dim=0).cpu()
    index_HW = radial_bands(size, bands)
    inside = index_HW >= 0
    sums = torch.zeros(bands, dtype=torch.float64)
    sums.index_add_(0, index_HW[inside], total_HW[inside])
    return (sums / torch.bincount(index_HW[inside], minlength=bands)).numpy()


@dataclass(frozen=True)
class Similarity:
    """Similarity of two spectra in every radial band, [R] each; NaN for a band without bins."""

    frequency: np.ndarray
    """Middle of the band in cycles per pixel of the coarser image."""
    amplitude_cosine: np.ndarray
    """Cosine of the amplitudes as vectors."""
    amplitude_correlation: np.ndarray
    """Pearson correlation of the logarithms of the amplitudes."""
    phase_cosine: np.ndarray
    """Mean cosine of the phase differences: 1 for equal phases, 0 for unrelated ones."""
    phase_correlation: np.ndarray
    """Circular correlation (Fisher and Lee 1983): a constant phase difference still gives 1."""


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / scale) if scale else float("nan")


def circular_correlation(a_N: np.ndarray, b_N: np.ndarray) -> float:
    """Return Fisher and Lee's correlation of angles in radians, -1 to 1; NaN if undefined."""
    u, v, count = np.exp(1j * a_N), np.exp(1j * b_N), len(a_N)
    numerator = abs((u * v.conj()).sum()) ** 2 - abs((u * v).sum()) ** 2
    squared_denominator = (count**2 - abs((u**2).sum()) ** 2) * (count**2 - abs((v**2).sum()) ** 2)
    return (
        float(numerator / np.sqrt(squared_denominator))
        if squared_denominator > 1e-9 * count**4
        else float("nan")
    )


def similarity(a_CHW: np.ndarray, b_CHW: np.ndarray, bands: int) -> Similarity:
    """Compare two spectra of real images, complex [C, H, W], over all channels.

    One of two conjugate bins is counted; bins that are their own conjugates are left out. Sums are
    taken in float64 whatever the type of the spectra, because cosines and correlations near 1 would
    otherwise end in digits that depend on the processor.
    """
    height, width = a_CHW.shape[1:]
    index_HW = radial_bands((height, width), bands).numpy()
    raster_HW = np.arange(height * width).reshape(height, width)
    mirror = np.roll(raster_HW[::-1, ::-1], (1, 1), (0, 1))
    columns = []
    for band in range(bands):
        chosen = (index_HW == band) & (raster_HW < mirror)
        a, b = (x[:, chosen].ravel().astype(np.complex128) for x in (a_CHW, b_CHW))
        nonzero = (a != 0) & (b != 0)
        a, b = a[nonzero], b[nonzero]
        if not len(a):
            columns.append((np.nan,) * 4)
            continue
        amplitudes, phases = (abs(a), abs(b)), (np.angle(a), np.angle(b))
        columns.append(
            (
                float((amplitudes[0] * amplitudes[1]).sum())
                / float(np.linalg.norm(amplitudes[0]) * np.linalg.norm(amplitudes[1])),
                _correlation(np.log(amplitudes[0]), np.log(amplitudes[1])),
                float(np.cos(phases[0] - phases[1]).mean()),
                circular_correlation(*phases),
            )
        )
    return Similarity(band_centres(bands), *np.array(columns).T)
