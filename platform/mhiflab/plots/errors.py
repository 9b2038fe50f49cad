"""Error maps side by side, such as one per activation."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mhiflab.plots.style import (
    LINE_IN,
    MAPS,
    TEXT_IN,
    error_limit,
    fitting_columns,
    most_lines,
    new_figure,
    picture,
    styled,
    wrapped,
)

COLUMNS = {3: 3, 5: 3, 6: 3}
"""Maps in a row by their number, so that rows are full; four otherwise, or what a page needs."""


@styled
def errors_figure(
    errors: Mapping[str, np.ndarray],
    notes: Mapping[str, str] | None = None,
    unit: str = "mean absolute error",
) -> Figure:
    """Draw error maps [H, W] on one scale, with a note below each.

    White pixels have no error (as black ones have no spectral angle). Raises `UserError` for more
    maps than fit a page.
    """
    first = next(iter(errors.values()))

    def width(columns: int) -> float:
        return (TEXT_IN - 0.6) / max(columns, 3)

    def titles_of(columns: int) -> list[str]:
        return [wrapped(label, max(8, int(width(columns) * 14))) for label in errors]

    def height(columns: int) -> float:
        lines = most_lines(titles_of(columns)) + most_lines((notes or {}).values())
        high = width(columns) * first.shape[0] / first.shape[1] + LINE_IN * lines + 0.15
        return -(-len(errors) // columns) * high

    fitting = fitting_columns(COLUMNS.get(len(errors), min(4, len(errors))), len(errors), height)
    titles, columns = titles_of(fitting), min(fitting, len(errors))
    rows = -(-len(errors) // columns)
    figure = new_figure(width(fitting) * columns + 0.6, height(fitting))
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
