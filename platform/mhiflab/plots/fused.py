"""Fused images in false colour, a zoom of each, and their error maps."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mhiflab.plots.style import (
    COLOURS,
    MAPS,
    TEXT_IN,
    error_limit,
    new_figure,
    picture,
    styled,
    wrapped,
)


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

    A column without errors, as the reference is, has its place there left empty; the scale ends
    where half a percent of the pixels lie above.
    """
    errors = [m.error for m in methods.values() if m.error is not None]
    first = next(iter(methods.values())).rgb
    rows = 1 + (zoom is not None) + bool(errors)
    each = (TEXT_IN - 0.6 * bool(errors)) / len(methods)
    shapes = [first.shape[0] / first.shape[1], 1.0, first.shape[0] / first.shape[1]]
    ratios = [shapes[0], *([1.0] if zoom else []), *([shapes[2]] if errors else [])]
    figure = new_figure(TEXT_IN, each * sum(ratios) + 0.55)
    axes = figure.subplots(rows, len(methods), squeeze=False, height_ratios=ratios)
    limit = error_limit(errors)
    for column, (label, method) in zip(axes.T, methods.items(), strict=True):
        picture(column[0], method.rgb)
        column[0].set_title(wrapped(label, max(8, int(each * 14))))
        if zoom is not None:
            corner, size = (zoom.col - 0.5, zoom.row - 0.5), zoom.size
            column[0].add_patch(
                Rectangle(corner, size, size, fill=False, edgecolor=COLOURS[4], linewidth=0.9)
            )
            picture(column[1], zoom.of(method.rgb))
            for spine in column[1].spines.values():
                spine.set(color=COLOURS[4], linewidth=0.9)
        if errors and method.error is None:
            column[-1].set_axis_off()
        elif method.error is not None:
            shown = picture(column[-1], method.error, cmap=MAPS["error"], vmin=0, vmax=limit)
        column[-1].set_xlabel(method.note)
    if errors:
        bar = figure.colorbar(shown, ax=axes[-1].tolist(), extend="max", pad=0.01, aspect=14)
        bar.set_label(wrapped(unit, 16))
    return figure
