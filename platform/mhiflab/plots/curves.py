"""A metric over iterations, such as with and without the Fourier branch."""

import pandas as pd
from matplotlib.figure import Figure

from mhiflab.plots.style import COLUMN_IN, look, new_figure, styled


@styled
def curves_figure(
    history: pd.DataFrame, x: str = "iteration", y: str = "validation PSNR (dB)"
) -> Figure:
    """Draw the mean over seeds, and a band of one standard deviation where there are several.

    `history` has columns method, seed, step and value; methods in order of appearance. Steps that
    not every seed of a method reached are left out, as their mean would jump.
    """
    figure = new_figure(COLUMN_IN, 2.3)
    axis = figure.subplots()
    for place, (method, rows) in enumerate(history.groupby("method", sort=False)):
        table = rows.pivot(index="step", columns="seed", values="value").sort_index().dropna()
        mean, seeds = table.mean(axis=1), table.shape[1]
        label = f"{method} ({seeds} seed{'s' * (seeds != 1)})"
        axis.plot(mean.index, mean, label=label, **look(place))
        if seeds > 1:
            std, colour = table.std(axis=1, ddof=1), look(place)["color"]
            axis.fill_between(
                mean.index, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0
            )
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.legend(loc="lower right")
    return figure
