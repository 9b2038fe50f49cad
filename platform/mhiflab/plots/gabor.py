"""The Gabor wavelet in time and frequency, and its product of spreads against the bound."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from mhiflab.plots.style import COLOURS, TEXT_IN, look, new_figure, styled

START = {"color": "0.55", "linewidth": 2.2}


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
    start: tuple[Wavelet, float] | None = None,
) -> Figure:
    """Draw the wavelet, its spectrum, and products of spreads over w/s with this one marked.

    Shaded is one spread on each side of the centre, in time and in frequency. `start` is what
    training made the wavelet from, and its w/s, drawn behind it.
    """
    figure = new_figure(TEXT_IN, 2.2)
    in_time, in_frequency, against = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    both = [(wavelet, "trained", look(0))]
    if start is not None:
        both.insert(0, (start[0], "start", START))
    for one, name, style in both:
        in_time.plot(one.x_N, one.psi_N.real, label=name, **style)
        in_frequency.plot(one.omega_N, one.density_N / one.density_N.max(), label=name, **style)
    in_time.set_xlabel("x")
    in_frequency.set_xlabel("angular frequency (rad per unit of x)")
    in_time.set_title(f"wavelet, spread {wavelet.time:.3g}")
    in_frequency.set_title(f"density of its spectrum, spread {wavelet.frequency:.3g}")
    for axis, spread in ((in_time, wavelet.time), (in_frequency, wavelet.frequency)):
        axis.axvspan(-spread, spread, color=COLOURS[5], alpha=0.25, linewidth=0)
        lines = [(line.get_xdata(), abs(line.get_ydata())) for line in axis.lines]
        seen = max(abs(at[size > 1e-3 * size.max()]).max() for at, size in lines)
        axis.set_xlim(-1.1 * seen, 1.1 * seen)
    if start is not None:
        in_time.legend(loc="upper right", handlelength=1.4)
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
    if start is not None:
        before = start[0].time * start[0].frequency
        against.plot([start[1]], [before], "o", color="black", markerfacecolor="none", markersize=5)
    here = wavelet.time * wavelet.frequency
    against.plot([ratio], [here], "o", color=COLOURS[0])
    against.annotate(
        f"{here:.3g} at {ratio:.3g}",
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
