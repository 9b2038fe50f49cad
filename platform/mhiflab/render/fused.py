"""Fused images as files: beside their inputs, and against their reference."""

import csv
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from feinfn.data.export import MAT_BYTES, write_image
from feinfn.data.images import pseudo_rgb
from feinfn.errors import UserError
from feinfn.files import write_atomic
from feinfn.inference.apply import Trained, fused_image
from feinfn.inference.inputs import FusionImages
from mhiflab.grid import Cell, Grid
from mhiflab.render.figures.images.quicklook import quick_look
from mhiflab.render.figures.style import figure_bytes
from mhiflab.render.metrics import METRICS

LEAST_DIGITS = 3
"""Conventions may differ by less than a table shows."""


def convention_grid(by_convention: Mapping[str, Mapping[str, float]]) -> Grid:
    """Return a table of indices by convention, with differences to the first column."""
    first = next(iter(by_convention.values()))
    rows = []
    for index, base in first.items():
        digits = max(METRICS[index].digits, LEAST_DIGITS)
        cells = [_cell(values[index], base, digits) for values in by_convention.values()]
        rows.append([Cell(METRICS[index].heading), *cells])
    heads = [name.replace("_", "_\n") for name in by_convention]
    return Grid(["index", *heads], rows)


def _cell(value: float, base: float, digits: int) -> Cell:
    """Return the value, with its difference if its printed digits differ from the base."""
    text = f"{value:.{digits}f}"
    if text == f"{base:.{digits}f}":
        return Cell(text, value=value)
    difference = f"{value - base:+.{digits}f}" if math.isfinite(value - base) else ""
    return Cell(text, "other", difference, value)


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


def write_fusion(
    path: Path,
    fused_SHW: np.ndarray,
    images: FusionImages,
    trained: Trained,
    run_key: str,
) -> Path:
    """Write the fused image and a picture of it beside its inputs; return the picture's path."""
    protocol = trained.protocol
    origin = {
        "run_key": run_key,
        "weights_sha256": trained.weights_sha256,
        "protocol": protocol.name if protocol else "",
        "upsampling": trained.upsampling,
        "mhiflab_version": version("mhiflab"),
    }
    origin = {name: text for name, text in origin.items() if text}
    order = protocol.msi_order if protocol else ()
    nm = images.hsi.wavelengths_nm
    reference_SHW = None
    if images.reference:
        reference_SHW, valid = images.reference.values_SHW, images.reference.valid_HW
        reference_SHW = np.where(True if valid is None else valid, reference_SHW, np.nan)
    look = quick_look(
        images.hsi.values_SHW,
        images.msi.values_SHW,
        fused_SHW,
        nm,
        order,
        reference_SHW,
    )
    picture, drawn = path.with_suffix(".png"), figure_bytes(look)

    def write_both(partial: Path) -> None:
        partial.write_bytes(drawn)
        write_image(path, fused_image(fused_SHW, images), "fused", origin)

    # Both take their names last, one right after the other, so that a cut leaves none of them.
    write_atomic(picture, write_both)
    return picture
