"""The Gabor wavelet in time and frequency, and its product of spreads against the bound."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from mhiflab.plots.style import COLOURS, TEXT_IN, look, new_figure, styled


@dataclass(frozen=True)
class Wavelet:
    """Samples of a wavelet and of its spectrum's density, each with its spread."""

    x_N: np.ndarray
    psi_N: np.ndarray
    omega_N: np.ndarray
    density_N: np.ndarray
    time: float
    frequency: float


@styled
def gabor_figure(
    wavelet: Wavelet,
    ratio: float,
    ratios: np.ndarray,
    products: Mapping[str, np.ndarray],
    bound: float = 0.5,
) -> Figure:
    """Draw the wavelet, its spectrum, and products of spreads over w/s with this one marked.

    Shaded is one spread on each side of the centre, in time and in frequency.
    """
    figure = new_figure(TEXT_IN, 2.2)
    in_time, in_frequency, against = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    sides = [
        (in_time, wavelet.x_N, wavelet.psi_N.real, wavelet.time, "x", "wavelet"),
        (
            in_frequency,
            wavelet.omega_N,
            wavelet.density_N / wavelet.density_N.max(),
            wavelet.frequency,
            "angular frequency (rad per unit of x)",
            "density of its spectrum",
        ),
    ]
    for axis, at, values, spread, label, title in sides:
        axis.axvspan(-spread, spread, color=COLOURS[5], alpha=0.25, linewidth=0)
        axis.plot(at, values, **look(0))
        seen = abs(at[abs(values) > 1e-3 * abs(values).max()]).max()
        axis.set_xlim(-1.1 * seen, 1.1 * seen)
        axis.set_xlabel(label)
        axis.set_title(f"{title}, spread {spread:.3g}")
    against.axhline(bound, color="black", linewidth=0.8)
    against.annotate(
        f"bound {bound:g}",
        (ratios[-1], bound),
        xytext=(0, -2),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=6.5,
    )
    for place, (label, values) in enumerate(products.items()):
        against.plot(ratios, values, label=label, **look(place))
    here = wavelet.time * wavelet.frequency
    against.plot([ratio], [here], "o", color=COLOURS[0])
    against.annotate(
        f"{here:.3g} at {ratio:g}",
        (ratio, here),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        fontsize=6.5,
    )
    against.set_xlabel("w / s")
    against.set_title("spread in time × spread in frequency")
    against.set_ylim(0, None)
    against.legend(loc="upper left")
    return figure
