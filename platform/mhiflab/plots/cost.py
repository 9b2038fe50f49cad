"""Quality against size: PSNR over parameters, bubbles as large as the cost."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mhiflab.plots.style import COLOURS, COLUMN_IN, new_figure, styled

LARGEST_PT2 = 420.0
SMALLEST_PT2 = 12.0
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)


@styled
def cost_figure(
    methods: pd.DataFrame, cost: str = "GFLOP", y: str = "PSNR (dB)", quoted: str = "quoted"
) -> Figure:
    """Draw a bubble a method; its area is proportional to the cost, a cross stands for none known.

    `methods` has columns method, parameters, psnr, cost (NaN where unknown) and measured (bool):
    numbers of others are drawn open, apart from our own.
    """
    rows = methods.sort_values(["parameters", "method"]).reset_index(drop=True)
    figure = new_figure(COLUMN_IN, 2.6)
    axis = figure.subplots()
    largest = rows["cost"].max()
    area = (rows["cost"] / largest * LARGEST_PT2).clip(lower=SMALLEST_PT2)
    for i, row in enumerate(rows.to_dict("records")):
        known, colour = np.isfinite(row["cost"]), COLOURS[0 if row["measured"] else 1]
        axis.scatter(
            row["parameters"] / 1e6,
            row["psnr"],
            s=area[i] if known else 22,
            marker="o" if known else "x",
            facecolor=colour if row["measured"] or not known else "none",
            edgecolor=None if not known else colour,
            alpha=0.75,
            linewidth=0.9,
        )
        radius = np.sqrt(area[i] / np.pi) if known else 3.0
        axis.annotate(
            row["method"],
            (row["parameters"] / 1e6, row["psnr"]),
            # Neighbours of like size take turns above and below.
            xytext=(0, (radius + 1.5) * (-1) ** i),
            textcoords="offset points",
            ha="center",
            va="bottom" if i % 2 == 0 else "top",
            fontsize=6.5,
        )
    axis.set_xscale("log")
    axis.margins(x=0.17, y=0.22)
    low, high = axis.get_xlim()
    ticks = [t for t in TICKS if low <= t <= high]
    axis.set_xticks(ticks, labels=[f"{t:g}" for t in ticks])
    axis.minorticks_off()
    axis.set_xlabel("parameters (millions)")
    axis.set_ylabel(y)
    kinds = [("ours", COLOURS[0], COLOURS[0]), (quoted, COLOURS[1], "none")]
    shown = [
        kind
        for kind, has in zip(kinds, (rows["measured"], ~rows["measured"]), strict=True)
        if has.any()
    ]
    handles = [
        Line2D([], [], linestyle="", marker="o", color=edge, markerfacecolor=face, label=name)
        for name, edge, face in shown
    ]
    if np.isfinite(largest):
        note = f"area: {cost}, largest {largest:.3g}"
        handles.append(Line2D([], [], linestyle="", label=note))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.1)
    return figure
