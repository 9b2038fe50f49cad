"""Fused images as files: beside their inputs, and against their reference."""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from feinfn.data.export import MAT_BYTES, write_image
from feinfn.data.images import colours, pseudo_rgb, rgb_bands
from feinfn.errors import UserError
from feinfn.files import write_atomic
from feinfn.inference.apply import Trained, fused_image
from feinfn.inference.inputs import FusionImages
from feinfn.metrics.label import LABELS
from mhiflab.grid import Cell, Grid
from mhiflab.render.figures.images.fused import fused_figure
from mhiflab.render.figures.style import MAPS, Panel, error_limit, figure_bytes

LEAST_DIGITS = 3
"""Conventions may differ by less than a table shows."""

WHITE = 0.99
"""Share of the fused image's values that are below white."""


def convention_grid(by_convention: Mapping[str, Mapping[str, float]]) -> Grid:
    """Return a table of indices by convention, with differences to the first column."""
    first = next(iter(by_convention.values()))
    rows = []
    for index, base in first.items():
        digits = max(LABELS[index].digits, LEAST_DIGITS)
        cells = [_cell(values[index], base, digits) for values in by_convention.values()]
        rows.append([Cell(LABELS[index].heading), *cells])
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
    rows = [f"{c},{i},{v!r}" for c, values in by_convention.items() for i, v in values.items()]
    text = "\n".join(["convention,index,value", *rows, ""])
    path.write_text(text, encoding="utf-8", newline="\n")


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
        scale = {"cmap": MAPS["error"], "vmin": 0, "vmax": error_limit([values])}
        image = axis.imshow(values, interpolation="nearest", **scale)
        figure.colorbar(image, ax=axis, extend="max")
        axis.set_title(title)
    for axis in axes:
        axis.set(xticks=[], yticks=[])
    figure.suptitle(f"convention {convention}")
    # Without the software entry the file does not depend on matplotlib's version string.
    figure.savefig(path, format="png", metadata={"Software": None})


def quick_look(
    fused_SHW: np.ndarray, images: FusionImages, msi_order: Sequence[str] = ()
) -> Figure:
    """Draw LR-HSI, MSI and fused HSI in pseudo-RGB; also a given reference and the errors.

    HSIs share one white, and the MSI has its own, whose bands are found by name, else as for
    ascending wavelengths. Errors are absolute, averaged over bands. Pixels without data are NaN,
    and drawn black, or white among errors.
    """

    def white(values: np.ndarray) -> float:
        return max(float(np.nanquantile(values, WHITE)), 1e-9)

    msi_MHW, bands = images.msi.values_SHW, rgb_bands(len(fused_SHW), images.hsi.wavelengths_nm)
    named = len(msi_order) == len(msi_MHW) and {"R", "G", "B"} <= set(msi_order)
    msi_bands = [msi_order.index(c) for c in "RGB"] if named else rgb_bands(len(msi_MHW), None)
    msi, hsi_white = msi_MHW[msi_bands], white(fused_SHW[bands])
    error, references = None, []
    if images.reference:
        reference_SHW, valid = images.reference.values_SHW, images.reference.valid_HW
        reference_SHW = np.where(True if valid is None else valid, reference_SHW, np.nan)
        error = np.abs(fused_SHW - reference_SHW).mean(axis=0)
        shown = np.nan_to_num(reference_SHW[bands])
        references = [Panel("Reference", colours(shown, hsi_white))]
    panels = [
        Panel("LR-HSI", colours(images.hsi.values_SHW[bands], hsi_white)),
        Panel("MSI", colours(msi, white(msi))),
        Panel("Fused", colours(np.nan_to_num(fused_SHW[bands]), hsi_white), error),
    ]
    return fused_figure([*panels, *references])


def write_fusion(
    path: Path, fused_SHW: np.ndarray, images: FusionImages, trained: Trained, run_key: str
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
    look = quick_look(fused_SHW, images, protocol.msi_order if protocol else ())
    picture, drawn = path.with_suffix(".png"), figure_bytes(look)

    def write_both(partial: Path) -> None:
        partial.write_bytes(drawn)
        write_image(path, fused_image(fused_SHW, images), "fused", origin)

    # Both take their names last, one right after the other, so that a cut leaves none of them.
    write_atomic(picture, write_both)
    return picture
