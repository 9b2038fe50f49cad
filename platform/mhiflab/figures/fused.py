"""Fused images of several cases with a zoom and error maps."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from feinfn.config import require
from mhiflab.figures.kind import Drawn, Images, note, row_of
from mhiflab.plots.fused import Fused, Zoom, fused_figure
from mhiflab.record.artifacts import FUSED, UPSAMPLED
from mhiflab.recorded import Recorded


@dataclass(frozen=True, kw_only=True)
class FusedOptions(Images):
    """Options of the fused images."""

    zoom: tuple[int, int, int] | None = None
    """Row, column and side of the square shown enlarged; null: a quarter of the shorter side, where
    upsampling errs most (in the middle without reference)."""


def draw_fused(recorded: Recorded, options: FusedOptions) -> Drawn:
    """Draw reference, upsampled LR-HSI and every case's image, zoom and absolute errors."""
    entries = recorded.of_one_seed(options.cases, options.seed)
    scene = recorded.scene(entries, options.scene)
    first = recorded.arrays(entries[0])
    methods: dict[str, Fused] = {}
    if f"{scene}/reference/rgb" in first:
        methods["Reference"] = Fused(first[f"{scene}/reference/rgb"])
    rows = []
    for entry, method in [(entries[0], UPSAMPLED), *((entry, FUSED) for entry in entries)]:
        arrays, at = recorded.arrays(entry), f"{scene}/{method}"
        error = arrays.get(f"{at}/error")
        values = row_of(recorded, entry, scene, method)
        methods[values["label"]] = Fused(arrays[f"{at}/rgb"], error, note(values))
        mean = np.nan if error is None else error.astype(np.float64).mean()
        rows.append(values | {"mean_absolute_error": mean})
    zoom = _zoom(
        options.zoom, first[f"{scene}/{UPSAMPLED}/rgb"], first.get(f"{scene}/{UPSAMPLED}/error")
    )
    numbers = pd.DataFrame(rows).assign(
        zoom_row=zoom.row, zoom_column=zoom.col, zoom_size=zoom.size
    )
    return Drawn(fused_figure(methods, zoom), numbers)


def _zoom(given: tuple[int, int, int] | None, rgb: np.ndarray, error: np.ndarray | None) -> Zoom:
    height, width = rgb.shape[:2]
    if given is not None:
        row, col, size = given
        inside = 0 <= row <= height - size and 0 <= col <= width - size and size >= 2
        require(inside, "option zoom", list(given), f"a square inside {height}x{width} pixels")
        return Zoom(row, col, size)
    size = max(2, min(height, width) // 4)
    if error is None:
        return Zoom((height - size) // 2, (width - size) // 2, size)
    # Sums over every square, from sums over all that lies above and left of its corners.
    sums = np.pad(error.astype(np.float64), ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    squares = sums[size:, size:] - sums[:-size, size:] - sums[size:, :-size] + sums[:-size, :-size]
    row, col = np.unravel_index(squares.argmax(), squares.shape)
    return Zoom(int(row), int(col), size)
