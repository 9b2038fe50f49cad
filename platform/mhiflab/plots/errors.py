"""Error maps side by side, such as one per activation."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mhiflab.plots.style import MAPS, TEXT_IN, error_limit, fit_page, new_figure, picture, styled

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

    page = fit_page(
        errors,
        (notes or {}).values(),
        COLUMNS.get(len(errors), min(4, len(errors))),
        lambda columns: (TEXT_IN - 0.6) / max(columns, 3),
        first.shape[0] / first.shape[1],
        0.15,
    )
    figure = new_figure(page.each_in * page.columns + 0.6, page.height_in)
    axes = figure.subplots(page.rows, page.columns, squeeze=False)
    limit = error_limit(errors.values())
    for axis in axes.flat[len(errors) :]:
        axis.set_axis_off()
    for axis, title, (label, error) in zip(axes.flat, page.titles, errors.items(), strict=False):
        shown = picture(axis, error, cmap=MAPS["error"], vmin=0, vmax=limit)
        axis.set_title(title)
        if notes:
            axis.set_xlabel(notes[label])
    bar = figure.colorbar(
        shown,
        ax=axes.ravel().tolist(),
        extend="max",
        extendfrac=0.03,
        pad=0.01,
        aspect=20 * page.rows,
    )
    bar.set_label(unit)
    return figure
