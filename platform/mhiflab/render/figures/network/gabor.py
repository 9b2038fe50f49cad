"""Gabor wavelet of a trained decoder layer in time and frequency, against the bound."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feinfn.analysis.gabor import BOUND, Kind, closed_spreads, gabor, sampled_spreads, spectrum
from feinfn.errors import require
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Drawing, Network, run_columns
from mhiflab.render.figures.style import COLOURS, TEXT_IN, line_style, new_figure, styled
from mhiflab.render.runs import network_run, trained_feinfn

SAMPLES, REACH = 8192, 48.0
"""Number of samples of a wavelet, and their reach in units of its width 1 / s."""

CURVES: dict[str, Kind] = {
    "real (used here)": "real",
    "complex": "complex",
    "positive frequencies": "one_sided",
}
"""Kinds of wavelets by label."""


@dataclass(frozen=True, kw_only=True)
class GaborOptions(Network):
    """Options of the wavelet."""

    layer: int = 1
    """Decoder layer of the filter, from 1; one filter may serve all layers."""


@dataclass(frozen=True)
class Wavelet:
    """Samples of a wavelet and of the density of its spectrum, with their spreads."""

    x_N: np.ndarray
    psi_N: np.ndarray
    omega_N: np.ndarray
    """Angular frequencies in rad per unit of x."""
    density_N: np.ndarray
    time: float
    """Spread in time."""
    frequency: float
    """Spread in frequency."""


def draw_gabor(plan: Plan, options: GaborOptions) -> Drawing:
    """Draw a filter with its trained frequency and width, and with those before training.

    Spreads are sums over samples; the numbers also hold those of the formulas.
    """
    entry = network_run(
        plan, options.case, options.seed, "Gabor filters", lambda m: m.activation == "gabor"
    )
    model = trained_feinfn(entry)
    config, filters = model.config, model.decoder.filters
    parameters = {"start": (config.omega_0, config.scale_0)}
    for i, layer_filter in enumerate(filters, 1):
        values = layer_filter.state_dict()
        parameters[f"layer {i}"] = (values["omega_0"].item(), values["scale_0"].item())
    # Training may change the signs, which have no effect.
    places = {place: (abs(omega), abs(scale)) for place, (omega, scale) in parameters.items()}
    drawn_layer = f"layer {options.layer}"
    layers = f"from 1 to {len(filters)}, the network's filters"
    require(drawn_layer in places, "option layer", options.layer, layers)
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
    # Other layers lie on the same curve; they are in the numbers only.
    start, trained = ((_wavelet(*places[p]), ratios[p]) for p in ("start", drawn_layer))
    figure = gabor_figure(*trained, ratios_N, products, BOUND, start)
    return Drawing(figure, numbers.assign(**run_columns(entry, plan.labels[entry.trial.case])))


def _wavelet(omega: float, scale: float) -> Wavelet:
    spreads = sampled_spreads(omega, scale, "real", SAMPLES, REACH)
    step = 2 * REACH / scale / SAMPLES
    x_N = (np.arange(SAMPLES) - SAMPLES // 2) * step
    psi_N = gabor(x_N, omega, scale)
    omega_N, density_N = spectrum(psi_N, step)
    return Wavelet(x_N, psi_N, omega_N, density_N, spreads.time, spreads.frequency)


START = {"color": "0.55", "linewidth": 2.2}
"""Style of the wavelet before training."""


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

    One spread on each side of the centre is shaded, in time and in frequency. `start` is the
    wavelet before training and its w/s, drawn behind.
    """
    figure = new_figure(TEXT_IN, 2.2)
    in_time, in_frequency, on_products = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    wavelets = [(wavelet, "trained", line_style(0))]
    if start is not None:
        wavelets.insert(0, (start[0], "start", START))
    for drawn, name, style in wavelets:
        in_time.plot(drawn.x_N, drawn.psi_N.real, label=name, **style)
        in_frequency.plot(
            drawn.omega_N, drawn.density_N / drawn.density_N.max(), label=name, **style
        )
    in_time.set_xlabel("x")
    in_frequency.set_xlabel("angular frequency (rad per unit of x)")
    in_time.set_title(f"wavelet, spread {wavelet.time:.3g}")
    in_frequency.set_title(f"density of its spectrum, spread {wavelet.frequency:.3g}")
    for axis, spread in ((in_time, wavelet.time), (in_frequency, wavelet.frequency)):
        axis.axvspan(-spread, spread, color=COLOURS[5], alpha=0.25, linewidth=0)
        lines = [(line.get_xdata(), abs(line.get_ydata())) for line in axis.lines]
        largest_x = max(abs(at[size > 1e-3 * size.max()]).max() for at, size in lines)
        axis.set_xlim(-1.1 * largest_x, 1.1 * largest_x)
    if start is not None:
        in_time.legend(loc="upper right", handlelength=1.4)
    _draw_products(on_products, products, ratios, bound)
    if start is not None:
        start_product = start[0].time * start[0].frequency
        on_products.plot(
            [start[1]], [start_product], "o", color="black", markerfacecolor="none", markersize=5
        )
    product = wavelet.time * wavelet.frequency
    on_products.plot([ratio], [product], "o", color=COLOURS[0])
    on_products.annotate(
        f"{product:.3g} at {ratio:.3g}",
        (ratio, product),
        xytext=(-4, 4),
        textcoords="offset points",
        ha="right",
        fontsize=6.5,
    )
    on_products.set_xlabel("w / s")
    on_products.set_title("spread in time × spread in frequency")
    on_products.set_ylim(0, None)
    on_products.legend(loc="upper left")
    return figure


def _draw_products(
    axis: Axes, products: Mapping[str, np.ndarray], ratios: np.ndarray, bound: float
) -> None:
    """Draw the bound and the products of spreads over w/s."""
    axis.axhline(bound, color="black", linewidth=0.8)
    axis.annotate(
        f"bound {bound:g}",
        (ratios[-1], bound),
        xytext=(0, -2),
        textcoords="offset points",
        ha="right",
        va="top",
        fontsize=6.5,
    )
    for place, (label, values) in enumerate(products.items()):
        axis.plot(ratios, values, label=label, **line_style(place))
