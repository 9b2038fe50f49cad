"""Error maps of several cases side by side, such as one per activation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feinfn.errors import UserError
from mhiflab.plan.plan import Plan
from mhiflab.record.artifacts import FUSED, UPSAMPLED
from mhiflab.render.figures.kind import Drawing, Images, metric_note, metric_row
from mhiflab.render.figures.style import (
    MAPS,
    TEXT_IN,
    error_limit,
    fit_page,
    new_figure,
    show_image,
    styled,
)
from mhiflab.render.runs import chosen_image, runs_of_one_seed

UNITS = {"error": "mean absolute error", "sam": "spectral angle (deg)"}
"""Labels of the scale by map."""


@dataclass(frozen=True, kw_only=True)
class ErrorsOptions(Images):
    """Options of the error maps."""

    map: Literal["error", "sam"] = "error"
    """Absolute error averaged over bands, or spectral angle."""
    upsampled: bool = False
    """Also draw the upsampled LR-HSI."""


def draw_errors(plan: Plan, options: ErrorsOptions) -> Drawing:
    """Draw every case's errors of one test image on one scale."""
    entries = runs_of_one_seed(plan, options.cases, options.seed)
    scene = chosen_image(entries[0], options.scene)
    fused = [(entry, FUSED) for entry in entries]
    maps: dict[str, np.ndarray] = {}
    notes, rows = {}, []
    for entry, method in [(entries[0], UPSAMPLED)] * options.upsampled + fused:
        key = f"{scene}/{method}/{options.map}"
        if key not in entry.run.arrays:
            raise UserError(
                f"{entry.who}: found no error map of test image {scene}, expected one; it has no "
                "reference: choose another (--option scene=...), or a study of simulated pairs"
            )
        values = metric_row(plan, entry, scene, method)
        error_HW = entry.run.arrays[key].astype(np.float64)
        maps[values["label"]], notes[values["label"]] = error_HW, metric_note(values)
        low, middle, high = np.nanpercentile(error_HW, (5, 50, 95))
        spread = {"mean": np.nanmean(error_HW), "p5": low, "median": middle, "p95": high}
        rows.append(values | {"map": options.map, **spread})
    return Drawing(errors_figure(maps, notes, UNITS[options.map]), pd.DataFrame(rows))


COLUMNS = {3: 3, 5: 3, 6: 3}
"""Columns by number of maps, for full rows; otherwise four, or more if a page needs it."""


@styled
def errors_figure(
    errors: Mapping[str, np.ndarray],
    notes: Mapping[str, str] | None = None,
    unit: str = "mean absolute error",
) -> Figure:
    """Draw error maps [H, W] on one scale, with a note below each.

    Pixels without a value are white, such as the spectral angles of black pixels. Raises
    `UserError` if there are more maps than fit a page.
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
        image = show_image(axis, error, cmap=MAPS["error"], vmin=0, vmax=limit)
        axis.set_title(title)
        if notes:
            axis.set_xlabel(notes[label])
    bar = figure.colorbar(
        image,
        ax=axes.ravel().tolist(),
        extend="max",
        extendfrac=0.03,
        pad=0.01,
        aspect=20 * page.rows,
    )
    bar.set_label(unit)
    return figure
