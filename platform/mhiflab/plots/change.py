"""How far local changes in space and in frequency reach."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mhiflab.plots.style import MAPS, TEXT_IN, new_figure, picture, styled, wrapped

DECADES = 4
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@styled
def change_figure(
    changes: Mapping[str, np.ndarray], reaches: Mapping[str, float] | None = None
) -> Figure:
    """Draw maps of absolute changes [H, W], each in decades below its own maximum.

    `reaches` gives the share of the image over which each change is spread, to be written below.
    """
    count = len(changes)
    each = (TEXT_IN - 0.6) / count
    first = next(iter(changes.values()))
    figure = new_figure(TEXT_IN, each * first.shape[0] / first.shape[1] + 0.6)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, (label, change) in zip(axes, changes.items(), strict=True):
        largest = float(np.abs(change).max()) or 1.0
        with np.errstate(divide="ignore"):
            decades = np.maximum(np.log10(np.abs(change.astype(np.float64)) / largest), -DECADES)
        shown = picture(axis, decades, cmap=MAPS["amplitude"], vmin=-DECADES, vmax=0)
        axis.set_title(wrapped(label, max(8, int(each * 14))))
        note = f"largest {largest:.1e}"
        if reaches is not None:
            note += f"\nreach {100 * reaches[label]:.2g} %"
        axis.set_xlabel(note)
    bar = figure.colorbar(shown, ax=axes.tolist(), extend="min", pad=0.01, shrink=0.9)
    powers = range(-DECADES, 1)
    bar.set_ticks(powers, labels=[f"10{str(n).translate(RAISED)}" for n in powers])
    bar.set_label("change, relative")
    return figure
