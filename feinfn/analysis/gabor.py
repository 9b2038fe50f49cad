"""The Gabor wavelet exp(-(s x)^2) cos(w x) in time and frequency, against the uncertainty bound.

Spreads are standard deviations: of |psi|^2 over x, and of its transform's |.|^2 over angular
frequency. Their product is at least 1/2 for every function. The wavelet has four kinds:

complex   exp(-(s x)^2 + i w x), whose real part is the real wavelet; it reaches the bound;
real      the decoder's filter; its two lobes at +w and -w count as spread in frequency;
one_sided the real wavelet with the density of its positive frequencies alone. No single function
          has both densities, so products below 1/2 are possible if the lobes overlap;
analytic  the function with the positive half of the spectrum. The spectrum jumps at zero, so
          x^2 |psi|^2 does not fall and the spread in time is infinite.

Legend: N samples.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import erf, wofz

from feinfn.errors import require

Kind = Literal["complex", "real", "one_sided", "analytic"]
BOUND = 0.5
"""Smallest product of the spreads of a function."""


@dataclass(frozen=True)
class Spreads:
    """Spreads in time (units of x) and in angular frequency (radians per unit)."""

    time: float
    frequency: float

    @property
    def product(self) -> float:
        """Product of the spreads, at least 1/2 for every single function."""
        return self.time * self.frequency


def gabor(x_N: np.ndarray, omega: float, scale: float, kind: Kind = "real") -> np.ndarray:
    """Return the wavelet at x; the analytic one in closed form (for |omega/scale| up to 50)."""
    envelope = np.exp(-((scale * x_N) ** 2))
    if kind == "complex":
        return envelope * np.exp(1j * omega * x_N)
    if kind != "analytic":
        return envelope * np.cos(omega * x_N)
    ratio = omega / scale
    lobes = (wofz(scale * x_N + sign * 0.5j * ratio) for sign in (-1, 1))
    return math.exp(-(ratio**2) / 4) / 2 * sum(lobes)


def closed_spreads(omega: float, scale: float, kind: Kind = "real") -> Spreads:
    """Return the spreads in closed form; that of `analytic` in time is infinite.

    Signs do not matter, because training may flip them. Raises `UserError` for a scale of zero.
    """
    require(scale != 0, "scale", scale, "a number other than 0")
    scale = abs(scale)
    r = abs(omega) / scale
    if kind == "complex":
        return Spreads(1 / (2 * scale), scale)
    overlap = math.exp(-(r**2) / 2)
    time = math.sqrt((1 + (1 - r**2) * overlap) / (1 + overlap)) / (2 * scale)
    square = 1 + r**2 / (1 + overlap)
    if kind == "real":
        return Spreads(time, scale * math.sqrt(square))
    root = math.sqrt(2 * math.pi)
    mean = (4 * overlap + r * root * float(erf(r / math.sqrt(2)))) / (root * (1 + overlap))
    frequency = scale * math.sqrt(max(0.0, square - mean**2))
    return Spreads(math.inf if kind == "analytic" else time, frequency)


def _deviation(position_N: np.ndarray, density_N: np.ndarray) -> float:
    weight_N = density_N / density_N.sum()
    mean = (weight_N * position_N).sum()
    return math.sqrt((weight_N * (position_N - mean) ** 2).sum())


def spectrum(psi_N: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ascending angular frequencies and the density |transform|^2 of samples."""
    omega_N = 2 * math.pi * np.fft.fftfreq(len(psi_N), step)
    density_N = (abs(np.fft.fft(psi_N)) * step) ** 2
    return np.fft.fftshift(omega_N), np.fft.fftshift(density_N)


def measured_spreads(psi_N: np.ndarray, step: float, one_sided: bool = False) -> Spreads:
    """Return the spreads of any function from its samples around x = 0, by sums and an FFT.

    `one_sided` counts only positive frequencies and half of frequency zero.
    """
    x_N = (np.arange(len(psi_N)) - len(psi_N) // 2) * step
    omega_N, density_N = spectrum(psi_N, step)
    if one_sided:
        density_N = density_N * (np.sign(omega_N) + 1)
    return Spreads(_deviation(x_N, abs(psi_N) ** 2), _deviation(omega_N, density_N))


def sampled_spreads(
    omega: float, scale: float, kind: Kind = "real", samples: int = 4096, reach: float = 12.0
) -> Spreads:
    """Return the wavelet's spreads from samples over |x| <= reach / scale.

    The spread in time of `analytic` grows with `reach`.
    """
    require(samples >= 16, "samples", samples, "an integer >= 16")
    require(scale != 0, "scale", scale, "a number other than 0")
    scale = abs(scale)
    step = 2 * reach / scale / samples
    x_N = (np.arange(samples) - samples // 2) * step
    psi_N = gabor(x_N, omega, scale, kind)
    return measured_spreads(psi_N, step, one_sided=kind == "one_sided")
