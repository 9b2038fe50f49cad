"""Amplitude and phase of the latent codes of a test image and of its LR-HSI."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feinfn.analysis.latent import latent_spectra
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Drawing, Network, run_columns
from mhiflab.render.figures.style import MAPS, TEXT_IN, line_style, new_figure, show_image, styled
from mhiflab.render.runs import network_run, trained_feinfn


@dataclass(frozen=True, kw_only=True)
class LatentOptions(Network):
    """Options of the latent codes."""

    bands: int = 8
    """Number of radial frequency bands in which the codes are compared."""


def draw_latent(plan: Plan, options: LatentOptions) -> Drawing:
    """Draw the codes of the trained spectral encoder for the kept part of the first test image."""
    entry = network_run(plan, options.case, options.seed, "a spectral encoder")
    window = entry.run.window()
    offset = entry.trial.spec.protocol.offset_px
    spectra = latent_spectra(trained_feinfn(entry), window.pair(entry.who), offset, options.bands)
    similarity = asdict(spectra.similarity)
    numbers = pd.DataFrame(similarity).rename(columns={"frequency": "cycles_per_lr_pixel"})
    numbers.loc[len(numbers)] = [np.nan, *numbers.iloc[:, 1:].mean()]
    numbers.insert(0, "band", [*range(1, options.bands + 1), "mean"])
    columns = run_columns(entry, plan.labels[entry.trial.case])
    numbers = numbers.assign(**columns, scene=window.scene)
    return Drawing(latent_figure(spectra.panels(), similarity["frequency"], similarity), numbers)


CURVES = {
    "amplitude_cosine": "amplitudes, cosine",
    "amplitude_correlation": "log amplitudes, correlation",
    "phase_cosine": "phases, mean cosine of difference",
    "phase_correlation": "phases, circular correlation",
}
"""Labels of the curves by name."""


@styled
def latent_figure(
    panels: Mapping[str, np.ndarray],
    frequency: np.ndarray,
    similarity: Mapping[str, np.ndarray],
    names: tuple[str, str] = ("HR-HSI", "LR-HSI"),
) -> Figure:
    """Draw both codes' log amplitude and phase, and their similarity by radial frequency.

    `panels` has hr_amplitude and lr_amplitude (decadic logarithms, one scale), hr_phase and
    lr_phase (radians), with frequency zero in the middle. `similarity` has the curves named in
    `CURVES`, over `frequency` in cycles per LR pixel.
    """
    figure = new_figure(TEXT_IN, 2.75)
    left, right = figure.subfigures(1, 2, squeeze=False, width_ratios=(1, 1))[0]
    axes = left.subplots(2, 2)
    amplitudes = np.stack([panels["hr_amplitude"], panels["lr_amplitude"]])
    low, high = np.percentile(amplitudes, (1, 99.9))
    scales = {
        "amplitude": {"vmin": low, "vmax": high},
        "phase": {"vmin": -np.pi, "vmax": np.pi},
    }
    for row, (part, scale) in zip(axes, scales.items(), strict=True):
        for axis, key, name in zip(row, ("hr", "lr"), names, strict=True):
            image = show_image(axis, panels[f"{key}_{part}"], cmap=MAPS[part], **scale)
            if part == "amplitude":
                axis.set_title(f"code of the {name}")
        bar = left.colorbar(image, ax=row.tolist(), aspect=12, pad=0.02)
        bar.set_label("log10 amplitude" if part == "amplitude" else "phase (rad)")
        if part == "phase":
            bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
    axis = right.subplots()
    axis.axhline(0, color="black", linewidth=0.6)
    for place, (key, label) in enumerate(CURVES.items()):
        values = similarity[key]
        curve_label = f"{label} (mean {np.nanmean(values):.2f})"
        axis.plot(frequency, values, marker="osD^"[place], label=curve_label, **line_style(place))
    axis.set_xlim(0, 0.52)
    axis.set_ylim(min(-0.1, float(np.nanmin([similarity[k] for k in CURVES])) - 0.05), 1.04)
    axis.set_xlabel("radial frequency (cycles per LR pixel)")
    axis.set_ylabel("similarity")
    right.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=1)
    return figure
