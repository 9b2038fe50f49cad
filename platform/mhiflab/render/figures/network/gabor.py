"""The Gabor wavelet of a trained decoder layer in time and frequency, against the bound."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feinfn.analysis.gabor import BOUND, Kind, closed_spreads, gabor, sampled_spreads, spectrum
from feinfn.config import require
from mhiflab.render.figures.kind import Drawing, Network, run_columns
from mhiflab.render.figures.style import COLOURS, TEXT_IN, line_style, new_figure, styled
from mhiflab.render.runs import RecordedStudy

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
    both = [(wavelet, "trained", line_style(0))]
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
        against.plot(ratios, values, label=label, **line_style(place))
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


SAMPLES, REACH = 8192, 48.0
"""Samples of a wavelet, and how far they reach in units of its width 1 / s."""

CURVES: dict[str, Kind] = {
    "real (used here)": "real",
    "complex": "complex",
    "positive frequencies": "one_sided",
}


@dataclass(frozen=True, kw_only=True)
class GaborOptions(Network):
    """Options of the wavelet."""

    layer: int = 1
    """Decoder layer whose filter is drawn, from 1 (one filter may serve all layers)."""


def draw_gabor(recorded: RecordedStudy, options: GaborOptions) -> Drawing:
    """Draw the filter at the trained frequency and width, and where it was at the start.

    All spreads are sums over samples; the numbers hold the formulas' beside them.
    """
    entry = recorded.network_entry(
        options.case, options.seed, "Gabor filters", lambda m: m.activation == "gabor"
    )
    model = recorded.model(entry)
    config, filters = model.config, model.decoder.filters
    found = {"start": (config.omega_0, config.scale_0)}
    for i, one in enumerate(filters, 1):
        values = one.state_dict()
        found[f"layer {i}"] = (values["omega_0"].item(), values["scale_0"].item())
    # The signs, which training may turn, change nothing.
    places = {place: (abs(omega), abs(scale)) for place, (omega, scale) in found.items()}
    shown = f"layer {options.layer}"
    layers = f"from 1 to {len(filters)}, the network's filters"
    require(shown in places, "option layer", options.layer, layers)
    rows = []
    for place, (omega, scale) in places.items():
        for kind in CURVES.values():
            measured = sampled_spreads(omega, scale, kind, SAMPLES, REACH)
            formula = closed_spreads(omega, scale, kind)
            rows.append(
                {
                    "place": place,
                    "omega": omega,
                    "scale": scale,
                    "kind": kind,
                    "time": measured.time,
                    "frequency": measured.frequency,
                    "product": measured.product,
                    "product_by_formula": formula.product,
                    "bound": BOUND,
                    "product_over_bound": measured.product / BOUND,
                }
            )
    numbers = pd.DataFrame(rows)
    ratios = {place: omega / scale for place, (omega, scale) in places.items()}
    ratios_N = np.linspace(0, max(6.0, 1.2 * max(ratios.values())), 121)
    products = {
        label: np.array([sampled_spreads(r, 1, kind, SAMPLES, REACH).product for r in ratios_N])
        for label, kind in CURVES.items()
    }
    # Of the other layers, which lie on the same curve, the numbers tell.
    start, trained = ((_wavelet(*places[p]), ratios[p]) for p in ("start", shown))
    figure = gabor_figure(*trained, ratios_N, products, BOUND, start)
    return Drawing(figure, numbers.assign(**run_columns(entry, recorded.labels[entry.trial.case])))


def _wavelet(omega: float, scale: float) -> Wavelet:
    spreads = sampled_spreads(omega, scale, "real", SAMPLES, REACH)
    step = 2 * REACH / scale / SAMPLES
    x_N = (np.arange(SAMPLES) - SAMPLES // 2) * step
    psi_N = gabor(x_N, omega, scale)
    at_N, density_N = spectrum(psi_N, step)
    return Wavelet(x_N, psi_N, at_N, density_N, spreads.time, spreads.frequency)
