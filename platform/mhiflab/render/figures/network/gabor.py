"""Gabor wavelet of a trained decoder layer in time and frequency, against the bound."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feinfn.analysis.gabor import BOUND, Kind, closed_spreads, gabor, sampled_spreads, spectrum
from feinfn.errors import require
from feinfn.fields import Count
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Drawing, Network, run_columns
from mhiflab.render.figures.style import COLOURS, line_style, new_figure, styled

SAMPLES, REACH = 8192, 48.0
"""Number of samples of a wavelet, and their reach in units of its width 1 / s."""

CURVES: dict[str, Kind] = {
    "real (used here)": "real",
    "complex": "complex",
    "positive frequencies": "one_sided",
}
"""Kinds of wavelets by label."""

START, TRAINED = {"color": "0.55", "linewidth": 2.2}, line_style(0)
"""Styles of the wavelet before and after training."""


@dataclass(frozen=True, kw_only=True)
class Gabor(Network):
    """A filter with its trained frequency and width, and with those before training.

    Spreads are sums over samples; the numbers also hold those of the formulas.
    """

    layer: Count = 1
    """Decoder layer of the filter, from 1; one filter may serve all layers."""

    def draw(self, plan: Plan) -> Drawing:
        entry, model = self.trained(plan, "Gabor filters", lambda m: m.activation == "gabor")
        filters = [one.state_dict() for one in model.decoder.filters]
        parameters = {"start": (model.config.omega_0, model.config.scale_0)}
        for i, values in enumerate(filters, 1):
            parameters[f"layer {i}"] = (values["omega_0"].item(), values["scale_0"].item())
        layers = f"from 1 to {len(filters)}, the network's filters"
        require(self.layer <= len(filters), "option layer", self.layer, layers)
        # Training may change the signs, which have no effect.
        places = {place: (abs(omega), abs(scale)) for place, (omega, scale) in parameters.items()}
        rows = []
        for place, (omega, scale) in places.items():
            for kind in CURVES.values():
                measured = sampled_spreads(omega, scale, kind, SAMPLES, REACH)
                rows.append(
                    {
                        "place": place,
                        "omega": omega,
                        "scale": scale,
                        "kind": kind,
                        "time": measured.time,
                        "frequency": measured.frequency,
                        "product": measured.product,
                        "product_by_formula": closed_spreads(omega, scale, kind).product,
                        "bound": BOUND,
                        "product_over_bound": measured.product / BOUND,
                    }
                )
        largest = max(omega / scale for omega, scale in places.values())
        # Other layers lie on the same curve; they are in the numbers only.
        figure = gabor_figure(places["start"], places[f"layer {self.layer}"], largest)
        return figure, pd.DataFrame(rows).assign(**run_columns(plan, entry))


Wavelet = tuple[float, float]
"""Frequency w and inverse width s of a wavelet."""


@styled
def gabor_figure(start: Wavelet, trained: Wavelet, largest_ratio: float) -> Figure:
    """Draw the wavelet, its spectrum, and products of spreads over w/s with this one marked.

    One spread on each side of the centre is shaded, in time and in frequency. The wavelet before
    training is drawn behind.
    """
    figure = new_figure(2.2)
    in_time, in_frequency, on_products = figure.subplots(1, 3, width_ratios=(1, 1, 1.2))
    for (omega, scale), label, style in ((start, "start", START), (trained, "trained", TRAINED)):
        step = 2 * REACH / scale / SAMPLES
        x_N = (np.arange(SAMPLES) - SAMPLES // 2) * step
        psi_N = gabor(x_N, omega, scale)
        omega_N, density_N = spectrum(psi_N, step)
        in_time.plot(x_N, psi_N, label=label, **style)
        in_frequency.plot(omega_N, density_N / density_N.max(), label=label, **style)
    spreads = sampled_spreads(*trained, "real", SAMPLES, REACH)
    in_time.set(xlabel="x", title=f"wavelet, spread {spreads.time:.3g}")
    in_frequency.set_xlabel("angular frequency (rad per unit of x)")
    in_frequency.set_title(f"density of its spectrum, spread {spreads.frequency:.3g}")
    for axis, spread in ((in_time, spreads.time), (in_frequency, spreads.frequency)):
        axis.axvspan(-spread, spread, color=COLOURS[5], alpha=0.25, linewidth=0)
        lines = [(line.get_xdata(), abs(line.get_ydata())) for line in axis.lines]
        largest_x = max(abs(at[size > 1e-3 * size.max()]).max() for at, size in lines)
        axis.set_xlim(-1.1 * largest_x, 1.1 * largest_x)
    in_time.legend(loc="upper right", handlelength=1.4)
    _draw_products(on_products, np.linspace(0, max(6.0, 1.2 * largest_ratio), 121))
    before = sampled_spreads(*start, "real", SAMPLES, REACH).product
    ring = {"color": "black", "markerfacecolor": "none", "markersize": 5}
    on_products.plot([start[0] / start[1]], [before], "o", **ring)
    ratio, product = trained[0] / trained[1], spreads.product
    on_products.plot([ratio], [product], "o", color=COLOURS[0])
    _note(on_products, f"{product:.3g} at {ratio:.3g}", (ratio, product), (-4, 4))
    on_products.set_ylim(0, None)
    on_products.legend(loc="upper left")
    return figure


def _draw_products(axis: Axes, ratios_N: np.ndarray) -> None:
    """Draw the bound and the products of spreads over w/s."""
    axis.axhline(BOUND, color="black", linewidth=0.8)
    _note(axis, f"bound {BOUND:g}", (ratios_N[-1], BOUND), (0, -2), va="top")
    for place, (label, kind) in enumerate(CURVES.items()):
        products = [sampled_spreads(r, 1, kind, SAMPLES, REACH).product for r in ratios_N]
        axis.plot(ratios_N, products, label=label, **line_style(place))
    axis.set(xlabel="w / s", title="spread in time × spread in frequency")


def _note(
    axis: Axes, text: str, at: tuple[float, float], offset_pt: tuple[int, int], va: str = "baseline"
) -> None:
    """Write a text that ends at an offset from a point."""
    axis.annotate(
        text, at, xytext=offset_pt, textcoords="offset points", ha="right", va=va, fontsize=6.5
    )
