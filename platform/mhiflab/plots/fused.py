"""Fused images in false colour, a zoom of each, and their error maps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mhiflab.plots.style import (
    COLOURS,
    MAPS,
    TEXT_IN,
    error_limit,
    fit_page,
    new_figure,
    picture,
    styled,
    wrapped,
)

WIDEST = 6
"""Methods that fit side by side."""
LARGEST_IN, SCALE_IN = 1.55, 0.85
"""Width of an image where few are drawn, and of the scale."""


@dataclass(frozen=True)
class Fused:
    """One method's image: uint8 [H, W, 3], its errors [H, W] (none without reference), a note."""

    rgb: np.ndarray
    error: np.ndarray | None = None
    note: str = ""


@dataclass(frozen=True)
class Zoom:
    """A square of pixels that is shown enlarged."""

    row: int
    col: int
    size: int

    def of(self, image: np.ndarray) -> np.ndarray:
        """Return the square of an image [H, W, ...]."""
        return image[self.row : self.row + self.size, self.col : self.col + self.size]


@styled
def fused_figure(
    methods: Mapping[str, Fused], zoom: Zoom | None = None, unit: str = "mean absolute error"
) -> Figure:
    """Draw one column a method: the image, its zoom, and its errors on one scale.

    More than six methods are drawn in blocks below each other, smaller where a page asks for it. A
    column without errors, as the reference is, has its place there left empty; the scale ends where
    half a percent of the pixels lie above. Raises `UserError` for more methods than fit a page.
    """
    errors = [m.error for m in methods.values() if m.error is not None]
    first = next(iter(methods.values())).rgb
    blocks = -(-len(methods) // WIDEST)
    aspect = first.shape[0] / first.shape[1]
    ratios = [aspect, *([1.0] if zoom else []), *([aspect] if errors else [])]

    page = fit_page(
        methods,
        (m.note for m in methods.values()),
        # Several blocks of few columns would be higher than a page.
        max(-(-len(methods) // blocks), WIDEST - 1 if blocks > 1 else 1),
        lambda columns: min((TEXT_IN - SCALE_IN * bool(errors)) / columns, LARGEST_IN),
        sum(ratios),
        0.3,
    )
    columns, blocks = page.columns, page.rows
    figure = new_figure(page.each_in * columns + SCALE_IN * bool(errors), page.height_in)
    # A narrow last column holds the scales, so that all others stand in line.
    widths = [1.0] * columns + [0.06] * bool(errors)
    axes = figure.subplots(
        blocks * len(ratios),
        len(widths),
        squeeze=False,
        height_ratios=ratios * blocks,
        width_ratios=widths,
    )
    used: list[Axes] = []
    limit = error_limit(errors)
    for i, (title, method) in enumerate(zip(page.titles, methods.values(), strict=True)):
        block, place = divmod(i, columns)
        column = axes[block * len(ratios) : (block + 1) * len(ratios), place]
        picture(column[0], method.rgb)
        column[0].set_title(title)
        if zoom is not None:
            corner, size = (zoom.col - 0.5, zoom.row - 0.5), zoom.size
            column[0].add_patch(
                Rectangle(corner, size, size, fill=False, edgecolor=COLOURS[4], linewidth=0.9)
            )
            picture(column[1], zoom.of(method.rgb))
            for spine in column[1].spines.values():
                spine.set(color=COLOURS[4], linewidth=0.9)
        used += list(column[: len(ratios) - bool(errors)])
        if method.error is not None:
            shown = picture(column[-1], method.error, cmap=MAPS["error"], vmin=0, vmax=limit)
            used.append(column[-1])
        column[-1].set_xlabel(method.note)
    for scale in axes[len(ratios) - 1 :: len(ratios), -1] if errors else ():
        bar = figure.colorbar(shown, cax=scale, extend="max", extendfrac=0.03)
        bar.set_label(wrapped(unit, 16))
        used.append(scale)
    for axis in axes.flat:
        if axis not in used:
            axis.remove()
    return figure
