"""Fused images of several cases in pseudo-RGB, with a zoom and an error map of each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from feinfn.errors import require
from mhiflab.plan.plan import Plan
from mhiflab.render.figures import style
from mhiflab.render.figures.kind import Drawing, Images

WIDEST = 6
"""Number of methods that fit side by side."""

LARGEST_IN, SCALE_IN = 1.55, 0.85
"""Largest width of an image, and width of the scale, in inches."""


Square = tuple[int, int, int]
"""Row, column and side of a square of pixels."""


@dataclass(frozen=True, kw_only=True)
class Fused(Images):
    """Reference, upsampled LR-HSI and every case: image, zoom and absolute errors."""

    zoom: Square | None = None
    """Row, column and side of the square to enlarge; null: a quarter of the shorter side, at the
    largest errors of upsampling, or in the middle without a reference."""

    def draw(self, plan: Plan) -> Drawing:
        results = self.methods(plan, upsampled=True)
        first = results[0]
        zoom = row, column, size = _find_zoom(first.rgb.shape[:2], first.error(), self.zoom)
        reference = first.entry.run.arrays.get(f"{first.scene}/reference/rgb")
        panels = [] if reference is None else [style.Panel("Reference", reference)]
        rows = []
        for result in results:
            values, error = result.values, result.error()
            panels.append(style.Panel(values["label"], result.rgb, error, result.note))
            mean = np.nan if error is None else np.nanmean(error.astype(np.float64))
            rows.append(values | {"mean_absolute_error": mean})
        numbers = pd.DataFrame(rows).assign(zoom_row=row, zoom_column=column, zoom_size=size)
        return fused_figure(panels, zoom), numbers


def _find_zoom(size_HW: tuple[int, ...], error: np.ndarray | None, square: Square | None) -> Square:
    """Return the square asked for, or that of the largest errors; raise `UserError` if it is out.

    Without errors it is in the middle.
    """
    height, width = size_HW
    if square is not None:
        row, col, size = square
        inside = 0 <= row <= height - size and 0 <= col <= width - size and size >= 2
        require(inside, "option zoom", list(square), f"a square inside {height}x{width} pixels")
        return square
    size = max(2, min(height, width) // 4)
    if error is None:
        return (height - size) // 2, (width - size) // 2, size
    # Sums over every square, from the sums over all pixels above and left of its corners.
    known = np.nan_to_num(error.astype(np.float64))
    sums = np.pad(known, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    squares = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    row, col = np.unravel_index(squares.argmax(), squares.shape)
    return int(row), int(col), size


@style.styled
def fused_figure(panels: Sequence[style.Panel], zoom: Square | None = None) -> Figure:
    """Draw one column per method: the image, its zoom, and its errors on one scale.

    More than six methods are drawn in blocks below each other, smaller if the page requires it. The
    reference has no errors, so that its place stays empty. Half a percent of the pixels lie above
    the end of the scale. Raises `UserError` if there are more methods than fit a page.
    """
    errors = [panel.error for panel in panels if panel.error is not None]
    scale_in = SCALE_IN * bool(errors)
    blocks = -(-len(panels) // WIDEST)
    height, width = panels[0].image.shape[:2]
    ratios = [height / width, *([1.0] if zoom else []), *([height / width] if errors else [])]
    page = style.fit_page(
        panels,
        # Several blocks of few columns would be higher than a page.
        max(-(-len(panels) // blocks), WIDEST - 1 if blocks > 1 else 1),
        lambda columns: min((style.TEXT_IN - scale_in) / columns, LARGEST_IN),
        sum(ratios),
        0.3,
    )
    figure = style.new_figure(page.height_in, page.each_in * page.columns + scale_in)
    # A narrow last column holds the scales, so that all others stand in line.
    widths = [1.0] * page.columns + [0.06] * bool(errors)
    axes = figure.subplots(
        page.rows * len(ratios),
        len(widths),
        squeeze=False,
        height_ratios=ratios * page.rows,
        width_ratios=widths,
    )
    limit = style.error_limit(errors)
    scale: dict[str, Any] = {"cmap": style.MAPS["error"], "vmin": 0, "vmax": limit}
    for i, (title, panel) in enumerate(zip(page.titles, panels, strict=True)):
        block, place = divmod(i, page.columns)
        column = axes[block * len(ratios) : (block + 1) * len(ratios), place]
        style.show_image(column[0], panel.image, title)
        if zoom is not None:
            _draw_zoom(column[0], column[1], panel.image, zoom)
        if panel.error is not None:
            image = style.show_image(column[-1], panel.error, **scale)
        column[-1].set_xlabel(panel.note)
    for bar_axis in axes[len(ratios) - 1 :: len(ratios), -1] if errors else ():
        bar = figure.colorbar(image, cax=bar_axis, extend="max", extendfrac=0.03)
        bar.set_label(style.wrapped("mean absolute error", 16))
    for axis in axes.flat:
        if not axis.has_data():
            axis.remove()
    return figure


def _draw_zoom(whole: Axes, enlarged: Axes, image: np.ndarray, zoom: Square) -> None:
    """Frame the square in an image, and show it by itself in the same frame."""
    row, col, size = zoom
    frame: dict[str, Any] = {"edgecolor": style.COLOURS[4], "linewidth": 0.9}
    whole.add_patch(Rectangle((col - 0.5, row - 0.5), size, size, fill=False, **frame))
    style.show_image(enlarged, image[row : row + size, col : col + size])
    enlarged.spines[:].set(**frame)
