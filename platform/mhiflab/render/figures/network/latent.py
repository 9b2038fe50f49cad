"""Amplitude and phase of the latent codes of a test image and of its LR-HSI."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feinfn.analysis.latent import latent_spectra
from feinfn.fields import Count
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Drawing, Network, run_columns
from mhiflab.render.figures.style import MAPS, line_style, new_figure, show_image, styled

CURVES = {
    "amplitude_cosine": "amplitudes, cosine",
    "amplitude_correlation": "log amplitudes, correlation",
    "phase_cosine": "phases, mean cosine of difference",
    "phase_correlation": "phases, circular correlation",
}
"""Labels of the curves by name."""


@dataclass(frozen=True, kw_only=True)
class Latent(Network):
    """Codes of the trained spectral encoder for the kept part of the first test image."""

    bands: Count = 8
    """Number of radial frequency bands in which the codes are compared."""

    def draw(self, plan: Plan) -> Drawing:
        entry, model = self.trained(plan, "a spectral encoder")
        window, offset = entry.run.window(), entry.trial.spec.protocol.offset_px
        pair = window.pair(entry.who)
        spectra = latent_spectra(model, pair, offset, self.bands)
        similarity = asdict(spectra.similarity)
        numbers = pd.DataFrame(similarity).rename(columns={"frequency": "cycles_per_lr_pixel"})
        numbers.loc[len(numbers)] = [np.nan, *numbers.iloc[:, 1:].mean()]
        numbers.insert(0, "band", [*range(1, self.bands + 1), "mean"])
        numbers = numbers.assign(**run_columns(plan, entry), scene=window.scene)
        return latent_figure(spectra.panels(), similarity), numbers


@styled
def latent_figure(panels: Mapping[str, np.ndarray], similarity: Mapping[str, np.ndarray]) -> Figure:
    """Draw both codes' log amplitude and phase, and their similarity by radial frequency.

    `panels` are those of `LatentSpectra`. `similarity` has the curves named in `CURVES`, over
    `frequency` in cycles per LR pixel.
    """
    figure = new_figure(2.75)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1))[0]
    axes = left.subplots(2, 2)
    amplitudes = np.stack([panels["hr_amplitude"], panels["lr_amplitude"]])
    for row, part, low, high in (
        (axes[0], "amplitude", *np.percentile(amplitudes, (1, 99.9))),
        (axes[1], "phase", -np.pi, np.pi),
    ):
        for axis, code in zip(row, ("hr", "lr"), strict=True):
            title = f"code of the {code.upper()}-HSI" if part == "amplitude" else ""
            picture = panels[f"{code}_{part}"]
            image = show_image(axis, picture, title, cmap=MAPS[part], vmin=low, vmax=high)
        bar = left.colorbar(image, ax=row.tolist(), aspect=12, pad=0.02)
        bar.set_label("log10 amplitude" if part == "amplitude" else "phase (rad)")
    bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
    axis = right.subplots()
    axis.axhline(0, color="black", linewidth=0.6)
    for place, (key, label) in enumerate(CURVES.items()):
        values = similarity[key]
        curve_label = f"{label} (mean {np.nanmean(values):.2f})"
        style = {"marker": "osD^"[place], "label": curve_label, **line_style(place)}
        axis.plot(similarity["frequency"], values, **style)
    axis.set_xlim(0, 0.52)
    axis.set_ylim(min(-0.1, float(np.nanmin([similarity[k] for k in CURVES])) - 0.05), 1.04)
    axis.set(xlabel="radial frequency (cycles per LR pixel)", ylabel="similarity")
    right.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=1)
    return figure
