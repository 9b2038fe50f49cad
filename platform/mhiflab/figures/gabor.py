"""The Gabor wavelet of a trained decoder layer in time and frequency, against the bound."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from feinfn.analysis.gabor import BOUND, Kind, closed_spreads, gabor, sampled_spreads, spectrum
from feinfn.config import require
from mhiflab.figures.kind import Drawn, Network, about
from mhiflab.plots.gabor import Wavelet, gabor_figure
from mhiflab.recorded import Recorded

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


def draw_gabor(recorded: Recorded, options: GaborOptions) -> Drawn:
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
    return Drawn(figure, numbers.assign(**about(entry, recorded.labels[entry.trial.case])))


def _wavelet(omega: float, scale: float) -> Wavelet:
    spreads = sampled_spreads(omega, scale, "real", SAMPLES, REACH)
    step = 2 * REACH / scale / SAMPLES
    x_N = (np.arange(SAMPLES) - SAMPLES // 2) * step
    psi_N = gabor(x_N, omega, scale)
    at_N, density_N = spectrum(psi_N, step)
    return Wavelet(x_N, psi_N, at_N, density_N, spreads.time, spreads.frequency)
