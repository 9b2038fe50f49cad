"""Fused images of several cases in pseudo-RGB, with a zoom and an error map of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from feinfn.errors import require
from mhiflab.plan.plan import Plan
from mhiflab.record.artifacts import FUSED, UPSAMPLED
from mhiflab.render.figures.kind import Drawing, Images, metric_note, metric_row
from mhiflab.render.figures.style import (
    COLOURS,
    MAPS,
    TEXT_IN,
    error_limit,
    fit_page,
    new_figure,
    show_image,
    styled,
    wrapped,
)
from mhiflab.render.runs import chosen_image, runs_of_one_seed


@dataclass(frozen=True, kw_only=True)
class FusedOptions(Images):
    """Options of the fused images."""

    zoom: tuple[int, int, int] | None = None
    """Row, column and side of the square to enlarge; null: a quarter of the shorter side, at the
    largest errors of upsampling, or in the middle without a reference."""


@dataclass(frozen=True)
class Fused:
    """A method's image with its errors."""

    rgb: np.ndarray
    """uint8 [H, W, 3]."""
    error: np.ndarray | None = None
    """[H, W]; None without a reference."""
    note: str = ""
    """Text below the image."""


@dataclass(frozen=True)
class Zoom:
    """A square of pixels to enlarge."""

    row: int
    col: int
    size: int

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the square of an image [H, W, ...]."""
        return image[self.row : self.row + self.size, self.col : self.col + self.size]


def draw_fused(plan: Plan, options: FusedOptions) -> Drawing:
    """Draw the reference, the upsampled LR-HSI and every case: image, zoom and absolute errors."""
    entries = runs_of_one_seed(plan, options.cases, options.seed)
    scene = chosen_image(entries[0], options.scene)
    first = entries[0].run.arrays
    methods: dict[str, Fused] = {}
    if f"{scene}/reference/rgb" in first:
        methods["Reference"] = Fused(first[f"{scene}/reference/rgb"])
    rows = []
    for entry, method in [(entries[0], UPSAMPLED), *((entry, FUSED) for entry in entries)]:
        arrays, key = entry.run.arrays, f"{scene}/{method}"
        error = arrays.get(f"{key}/error")
        values = metric_row(plan, entry, scene, method)
        methods[values["label"]] = Fused(arrays[f"{key}/rgb"], error, metric_note(values))
        mean = np.nan if error is None else error.astype(np.float64).mean()
        rows.append(values | {"mean_absolute_error": mean})
    zoom = _zoom(
        options.zoom, first[f"{scene}/{UPSAMPLED}/rgb"], first.get(f"{scene}/{UPSAMPLED}/error")
    )
    numbers = pd.DataFrame(rows).assign(
        zoom_row=zoom.row, zoom_column=zoom.col, zoom_size=zoom.size
    )
    return Drawing(fused_figure(methods, zoom), numbers)


def _zoom(square: tuple[int, int, int] | None, rgb: np.ndarray, error: np.ndarray | None) -> Zoom:
    height, width = rgb.shape[:2]
    if square is not None:
        row, col, size = square
        inside = 0 <= row <= height - size and 0 <= col <= width - size and size >= 2
        require(inside, "option zoom", list(square), f"a square inside {height}x{width} pixels")
        return Zoom(row, col, size)
    size = max(2, min(height, width) // 4)
    if error is None:
        return Zoom((height - size) // 2, (width - size) // 2, size)
    # Sums over every square, from the sums over all pixels above and left of its corners.
    sums = np.pad(error.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    squares = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    row, col = np.unravel_index(squares.argmax(), squares.shape)
    return Zoom(int(row), int(col), size)


WIDEST = 6
"""Number of methods that fit side by side."""

LARGEST_IN, SCALE_IN = 1.55, 0.85
"""Largest width of an image, and width of the scale, in inches."""


@styled
def fused_figure(
    methods: Mapping[str, Fused], zoom: Zoom | None = None, unit: str = "mean absolute error"
) -> Figure:
    """Draw one column per method: the image, its zoom, and its errors on one scale.

    More than six methods are drawn in blocks below each other, smaller if the page requires it. The
    reference has no errors, so that its place stays empty. Half a percent of the pixels lie above
    the end of the scale. Raises `UserError` if there are more methods than fit a page.
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
        _draw_image(list(column), title, method, zoom)
        used += list(column[: len(ratios) - bool(errors)])
        if method.error is not None:
            image = show_image(column[-1], method.error, cmap=MAPS["error"], vmin=0, vmax=limit)
            used.append(column[-1])
        column[-1].set_xlabel(method.note)
    for scale in axes[len(ratios) - 1 :: len(ratios), -1] if errors else ():
        bar = figure.colorbar(image, cax=scale, extend="max", extendfrac=0.03)
        bar.set_label(wrapped(unit, 16))
        used.append(scale)
    for axis in axes.flat:
        if axis not in used:
            axis.remove()
    return figure


def _draw_image(column: Sequence[Axes], title: str, method: Fused, zoom: Zoom | None) -> None:
    """Draw a method's image, and its zoom below."""
    show_image(column[0], method.rgb)
    column[0].set_title(title)
    if zoom is not None:
        corner, size = (zoom.col - 0.5, zoom.row - 0.5), zoom.size
        column[0].add_patch(
            Rectangle(corner, size, size, fill=False, edgecolor=COLOURS[4], linewidth=0.9)
        )
        show_image(column[1], zoom.cut(method.rgb))
        for spine in column[1].spines.values():
            spine.set(color=COLOURS[4], linewidth=0.9)
