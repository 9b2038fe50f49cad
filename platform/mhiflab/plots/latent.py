"""Amplitude and phase of the latent codes of HR-HSI and LR-HSI."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mhiflab.plots.style import MAPS, TEXT_IN, look, new_figure, picture, styled

CURVES = {
    "amplitude_cosine": "amplitudes, cosine",
    "amplitude_correlation": "log amplitudes, correlation",
    "phase_cosine": "phases, mean cosine of difference",
    "phase_correlation": "phases, circular correlation",
}


@styled
def latent_figure(
    panels: Mapping[str, np.ndarray],
    frequency: np.ndarray,
    similarity: Mapping[str, np.ndarray],
    names: tuple[str, str] = ("HR-HSI", "LR-HSI"),
) -> Figure:
    """Draw both codes' log amplitude and phase, and their similarity by radial frequency.

    `panels` has hr_amplitude, lr_amplitude (decadic logarithms, one scale), hr_phase and lr_phase
    (radians), frequency zero in the middle; `similarity` the curves named in `CURVES`, over cycles
    per LR pixel.
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
            shown = picture(axis, panels[f"{key}_{part}"], cmap=MAPS[part], **scale)
            if part == "amplitude":
                axis.set_title(f"code of the {name}")
        bar = left.colorbar(shown, ax=row.tolist(), aspect=12, pad=0.02)
        bar.set_label("log10 amplitude" if part == "amplitude" else "phase (rad)")
        if part == "phase":
            bar.set_ticks([-np.pi, 0, np.pi], labels=["−π", "0", "π"])
    axis = right.subplots()
    axis.axhline(0, color="black", linewidth=0.6)
    for place, (key, label) in enumerate(CURVES.items()):
        values = similarity[key]
        told = f"{label} (mean {np.nanmean(values):.2f})"
        axis.plot(frequency, values, marker="osD^"[place], label=told, **look(place))
    axis.set_xlim(0, 0.52)
    axis.set_ylim(min(-0.1, float(np.nanmin([similarity[k] for k in CURVES])) - 0.05), 1.04)
    axis.set_xlabel("radial frequency (cycles per LR pixel)")
    axis.set_ylabel("similarity")
    right.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=1)
    return figure
