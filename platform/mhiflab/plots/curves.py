"""A metric over iterations, such as with and without the Fourier branch."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mhiflab.plots.style import COLUMN_IN, legend_above, look, new_figure, styled

FEW = 20
"""Points up to which a curve shows each of them."""


@styled
def curves_figure(
    history: pd.DataFrame, x: str = "iteration", y: str = "validation PSNR (dB)"
) -> Figure:
    """Draw the mean over seeds, and a band of one standard deviation where there are several.

    `history` has columns method, seed, value and step, what the values stand over; methods in
    order of appearance. Steps that not every seed of a method reached are left out, as their mean
    would jump.
    """
    figure = new_figure(COLUMN_IN, 2.2)
    axis = figure.subplots()
    counts: set[int] = set()
    for place, (_, rows) in enumerate(history.groupby("method", sort=False)):
        table = rows.pivot(index="step", columns="seed", values="value").sort_index().dropna()
        mean, seeds = table.mean(axis=1), table.shape[1]
        marker = "o" if len(mean) <= FEW else None
        axis.plot(mean.index, mean, marker=marker, **look(place))
        counts.add(seeds)
        if seeds > 1:
            std, colour = table.std(axis=1, ddof=1), look(place)["color"]
            axis.fill_between(
                mean.index, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0
            )
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    told = "–".join(str(n) for n in sorted({min(counts), max(counts)}))
    several = f"mean of {told} seeds ± standard deviation"
    axis.set_title(several if max(counts) > 1 else "1 seed", loc="right")
    axis.xaxis.set_major_locator(
        MaxNLocator(6, integer=pd.api.types.is_integer_dtype(history["step"]))
    )
    legend_above(figure, axis.lines, [str(name) for name in history["method"].unique()])
    return figure
