"""PSNR of a run off its protocol, over PSF, SRF and noise."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feinfn.files import write_bytes
from feinfn.metrics.label import METRICS
from mhiflab.paths import Lab
from mhiflab.plan.plan import Finished
from mhiflab.record.artifacts import CELL_COLUMNS, ROBUSTNESS_PICTURE, add_artifact, group_means
from mhiflab.render.figures.style import figure_bytes, new_figure, styled


def cell_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return the metrics of every cell, averaged over scenes."""
    return group_means(table, CELL_COLUMNS, METRICS).reset_index()


def record_picture(entry: Finished, table: pd.DataFrame, lab: Lab) -> Path:
    """Write the figure of a trial's table beside its training state, and store it with the run."""
    path = lab.checkpoints(entry.key) / ROBUSTNESS_PICTURE
    figure = robustness_figure(table, f"{entry.trial.label}, seed {entry.trial.spec.seed}")
    write_bytes(path, figure_bytes(figure))
    add_artifact(entry.run.store, entry.run.id, path)
    return path


@styled
def robustness_figure(table: pd.DataFrame, title: str) -> Figure:
    """Draw PSNR over PSF width, one line per noise level and one panel per response table."""
    panels = list(cell_means(table).groupby("srf", sort=False))
    figure = new_figure(2.4, 2.8 * len(panels) + 0.5)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    colours = mpl.colormaps["cividis"](np.linspace(0, 0.9, table["snr_db"].nunique()))
    for axis, (srf, means) in zip(axes, panels, strict=True):
        levels = sorted(means["snr_db"].unique(), reverse=True)
        for colour, snr in zip(colours, levels, strict=False):
            line = means[means["snr_db"] == snr].sort_values("sigma_factor")
            label = "no noise" if np.isinf(snr) else f"{snr:g} dB SNR"
            axis.plot(line["sigma_factor"], line["psnr"], "o-", color=colour, label=label)
        axis.axvline(1, color="0.7", linewidth=0.8, zorder=0)
        axis.set(title=srf, xlabel="PSF width / trained width")
    axes[0].set_ylabel("PSNR (dB)")
    axes[0].legend()
    figure.suptitle(title)
    return figure
