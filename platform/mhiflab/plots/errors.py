"""Error maps side by side, such as one per activation."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mhiflab.plots.style import (
    LINE_IN,
    MAPS,
    TEXT_IN,
    error_limit,
    most_lines,
    new_figure,
    picture,
    styled,
    wrapped,
)

COLUMNS = {3: 3, 5: 3, 6: 3}
"""Maps in a row by their number, so that rows are full; four otherwise."""


@styled
def errors_figure(
    errors: Mapping[str, np.ndarray],
    notes: Mapping[str, str] | None = None,
    unit: str = "mean absolute error",
) -> Figure:
    """Draw error maps [H, W] on one scale, at most four in a row, with a note below each.

    White pixels have no error (as black ones have no spectral angle).
    """
    columns = COLUMNS.get(len(errors), min(4, len(errors)))
    rows = -(-len(errors) // columns)
    each = (TEXT_IN - 0.6) / max(columns, 3)
    first = next(iter(errors.values()))
    titles = [wrapped(label, int(each * 14)) for label in errors]
    lines = most_lines(titles) + most_lines((notes or {}).values())
    height = rows * (each * first.shape[0] / first.shape[1] + LINE_IN * lines + 0.15)
    figure = new_figure(each * columns + 0.6, height)
    axes = figure.subplots(rows, columns, squeeze=False)
    limit = error_limit(errors.values())
    for axis in axes.flat[len(errors) :]:
        axis.set_axis_off()
    for axis, title, (label, error) in zip(axes.flat, titles, errors.items(), strict=False):
        shown = picture(axis, error, cmap=MAPS["error"], vmin=0, vmax=limit)
        axis.set_title(title)
        if notes:
            axis.set_xlabel(notes[label])
    bar = figure.colorbar(
        shown, ax=axes.ravel().tolist(), extend="max", extendfrac=0.03, pad=0.01, aspect=20 * rows
    )
    bar.set_label(unit)
    return figure
