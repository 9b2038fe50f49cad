"""A fused image against its reference: a table on the console, and CSV, .mat and PNG files."""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from feinfn.data.images import MAT_BYTES
from feinfn.errors import UserError
from mhiflab.render.metrics import METRICS

LEAST_DIGITS = 3
"""Conventions may differ by less than a table shows."""


def comparison_table(by_convention: Mapping[str, Mapping[str, float]]) -> Table:
    """Return a table of indices by convention, with differences to the first column below."""
    first = next(iter(by_convention.values()))
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("index", no_wrap=True)
    for name in by_convention:
        table.add_column(name.replace("_", "_\n"), justify="right")
    for index, base in first.items():
        label = METRICS[index]
        digits = max(label.digits, LEAST_DIGITS)
        cells = [_cell(values[index], base, digits) for values in by_convention.values()]
        table.add_row(label.heading, *cells)
    return table


def _cell(value: float, base: float, digits: int) -> str:
    """Return the value, and below it the difference if its printed digits differ from the base."""
    text = f"{value:.{digits}f}"
    if text == f"{base:.{digits}f}":
        return text
    difference = f"\n{value - base:+.{digits}f}" if math.isfinite(value - base) else ""
    return f"[yellow]{text}{difference}[/]"


def write_csv(path: Path, by_convention: Mapping[str, Mapping[str, float]]) -> None:
    """Write one row per convention and index, with all digits, as CSV."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["convention", "index", "value"])
        writer.writerows(
            [c, i, repr(v)] for c, values in by_convention.items() for i, v in values.items()
        )


def write_mat(path: Path, fused_SHW: np.ndarray, reference_SHW: np.ndarray, ratio: int) -> None:
    """Write a .mat file (version 5) for the MATLAB package: `sr`, `gt` [H, W, S] and `ratio`.

    Images are float64, because the package's SAM of float32 images differs by up to 7e-4 degrees.
    Raises `UserError` if an image is too large for version 5.
    """
    from scipy.io import savemat

    cubes = {
        name: np.moveaxis(x, 0, -1).astype(np.float64)
        for name, x in (("sr", fused_SHW), ("gt", reference_SHW))
    }
    if cubes["gt"].nbytes > MAT_BYTES:
        raise UserError(
            f"--mat: found images of {cubes['gt'].nbytes / 2**30:.1f} GiB as float64, expected "
            "less than 2 GiB, the limit of version 5 .mat files; crop both images"
        )
    savemat(path, {**cubes, "ratio": float(ratio)}, appendmat=False, do_compression=True)


def write_map(path: Path, fused_SHW: np.ndarray, maps: Mapping[str, Any], convention: str) -> None:
    """Draw the fused image in pseudo-RGB, its mean absolute error and its spectral angles."""
    from matplotlib.figure import Figure

    from feinfn.data.images import pseudo_rgb

    figure = Figure(figsize=(11, 3.8), dpi=150, layout="constrained")
    axes = figure.subplots(1, 3)
    axes[0].imshow(pseudo_rgb(fused_SHW, None), interpolation="nearest")
    axes[0].set_title("Fused (pseudo-RGB)")
    panels = (("error", "Mean absolute error"), ("sam_deg", "SAM (deg), white: left out"))
    for axis, (key, title) in zip(axes[1:], panels, strict=True):
        values = np.asarray(maps[key])
        finite = values[np.isfinite(values)]
        # A few large errors would hide all others.
        limit = float(np.percentile(finite, 99.5)) if finite.size else 0.0
        image = axis.imshow(
            values, cmap="cividis", vmin=0, vmax=limit or 1, interpolation="nearest"
        )
        figure.colorbar(image, ax=axis, extend="max")
        axis.set_title(title)
    for axis in axes:
        axis.set_xticks([])
        axis.set_yticks([])
    figure.suptitle(f"convention {convention}")
    # Without the software entry the file does not depend on matplotlib's version string.
    figure.savefig(path, format="png", metadata={"Software": None})
