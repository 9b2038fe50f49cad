"""Error maps of several cases side by side, such as one per activation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feinfn.errors import UserError
from mhiflab.plan.plan import Plan
from mhiflab.render.figures import style
from mhiflab.render.figures.kind import Drawing, Images

UNITS = {"error": "mean absolute error", "sam": "spectral angle (deg)"}
"""Labels of the scale by map."""

COLUMNS = {3: 3, 5: 3, 6: 3}
"""Columns by number of maps, for full rows; otherwise four, or more if a page needs it."""


@dataclass(frozen=True, kw_only=True)
class Errors(Images):
    """Every case's errors of one test image on one scale."""

    map: Literal["error", "sam"] = "error"
    """Absolute error averaged over bands, or spectral angle."""
    upsampled: bool = False
    """Also draw the upsampled LR-HSI."""

    def draw(self, plan: Plan) -> Drawing:
        panels, rows = [], []
        for result in self.methods(plan, self.upsampled):
            error_HW = result.error(self.map)
            if error_HW is None:
                raise UserError(
                    f"{result.entry.who}: found no error map of test image {result.scene}, "
                    "expected one; it has no reference: choose another (--option scene=...), or a "
                    "study of simulated pairs"
                )
            error_HW, values = error_HW.astype(np.float64), result.values
            panels.append(style.Panel(values["label"], error_HW, note=result.note))
            low, middle, high = np.nanpercentile(error_HW, (5, 50, 95))
            spread = {"mean": np.nanmean(error_HW), "p5": low, "median": middle, "p95": high}
            rows.append(values | {"map": self.map, **spread})
        return errors_figure(panels, UNITS[self.map]), pd.DataFrame(rows)


@style.styled
def errors_figure(panels: Sequence[style.Panel], unit: str) -> Figure:
    """Draw error maps on one scale, with a note below each.

    Pixels without a value are white, such as the spectral angles of black pixels. Raises
    `UserError` if there are more maps than fit a page.
    """
    height, width = panels[0].image.shape
    page = style.fit_page(
        panels,
        COLUMNS.get(len(panels), min(4, len(panels))),
        lambda columns: (style.TEXT_IN - 0.6) / max(columns, 3),
        height / width,
        0.15,
    )
    figure = style.new_figure(page.height_in, page.each_in * page.columns + 0.6)
    axes = figure.subplots(page.rows, page.columns, squeeze=False)
    limit = style.error_limit(panel.image for panel in panels)
    scale = {"cmap": style.MAPS["error"], "vmin": 0, "vmax": limit}
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, title, panel in zip(axes.flat, page.titles, panels, strict=False):
        image = style.show_image(axis, panel.image, title, panel.note, **scale)
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
