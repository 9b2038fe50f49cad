"""Spectra of several cases at some pixels, against the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from feinfn.analysis.spectra import angles_deg, distinct_pixels, spectra_at
from feinfn.data.images import pseudo_rgb
from feinfn.errors import require
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Drawing, Images, run_columns
from mhiflab.render.figures.style import (
    COLOURS,
    TEXT_IN,
    legend_above,
    line_style,
    new_figure,
    show_image,
    styled,
)
from mhiflab.render.runs import runs_of_one_seed


@dataclass(frozen=True, kw_only=True)
class SpectraOptions(Images):
    """Options of the spectra."""

    pixels: tuple[tuple[int, int], ...] = ()
    """Rows and columns in the whole test image; empty: `count` pixels of different materials."""
    count: int = 3
    """Number of pixels to choose."""
    upsampled: bool | None = None
    """Also draw the upsampled LR-HSI; null: if it gets a colour of its own."""


def draw_spectra(plan: Plan, options: SpectraOptions) -> Drawing:
    """Draw spectra of the part of the first test image that runs keep with all bands."""
    entries = runs_of_one_seed(plan, options.cases, options.seed)
    windows = [entry.run.window(options.scene) for entry in entries]
    first, wavelengths_nm = windows[0], windows[0].wavelengths_nm
    reference_SHW = first.pair(entries[0].who).reference_BSHW[0].numpy()
    (top, left), (height, width) = first.place, reference_SHW.shape[1:]
    pixels = [(row - top, col - left) for row, col in options.pixels]
    for (row, col), pixel in zip(pixels, options.pixels, strict=True):
        inside = 0 <= row < height and 0 <= col < width
        kept_part = f"rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        require(inside, "option pixels", list(pixel), f"a place kept with all bands: {kept_part}")
    pixels = pixels or distinct_pixels(reference_SHW, options.count)
    images = [
        (run_columns(entry, plan.labels[entry.trial.case]), window.fused_SHW)
        for entry, window in zip(entries, windows, strict=True)
    ]
    if options.upsampled or (options.upsampled is None and len(images) < len(COLOURS)):
        upsampled_SHW = first.inputs.lms_BSHW[0].numpy()
        columns = run_columns(entries[0], plan.upsampled_label)
        images.insert(0, (columns, upsampled_SHW))
    reference_PS = spectra_at(reference_SHW, pixels)
    methods, rows = {}, []
    for columns, image_SHW in images:
        methods[columns["label"]] = spectra_PS = spectra_at(image_SHW, pixels)
        angles_P = angles_deg(spectra_PS, reference_PS)
        for i, (row, col) in enumerate(pixels):
            table = pd.DataFrame(
                {
                    "band": np.arange(1, len(reference_SHW) + 1),
                    "wavelength_nm": np.nan if wavelengths_nm is None else wavelengths_nm,
                    "reference": reference_PS[i],
                    "found": spectra_PS[i],
                }
            )
            place = {"pixel": i + 1, "row": row + top, "column": col + left}
            rows.append(table.assign(**columns, scene=first.scene, **place, angle_deg=angles_P[i]))
    rgb = pseudo_rgb(reference_SHW, wavelengths_nm)
    figure = spectra_figure(reference_PS, methods, pixels, wavelengths_nm, rgb, first.place)
    return Drawing(figure, pd.concat(rows, ignore_index=True))


@styled
def spectra_figure(
    reference_PS: np.ndarray,
    methods: Mapping[str, np.ndarray],
    pixels: Sequence[tuple[int, int]],
    wavelengths_nm: np.ndarray | None = None,
    rgb: np.ndarray | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Figure:
    """Draw each pixel's spectra, and below them the errors of every method.

    Spectra are [P, S]; without wavelengths the axis counts bands from 1. `rgb` shows the places of
    the pixels (row, column). If it is a part of an image, `origin` is its first row and column
    there, and titles count from the image's.
    """
    x_S = np.arange(1, reference_PS.shape[1] + 1) if wavelengths_nm is None else wavelengths_nm
    count = len(pixels) + (rgb is not None)
    figure = new_figure(TEXT_IN, 2.75)
    axes = figure.subplots(2, count, squeeze=False, sharex="col", height_ratios=(2, 1))
    panels = axes
    if rgb is not None:
        axes[1, 0].set_axis_off()
        show_image(axes[0, 0], rgb)
        panels = axes[:, 1:]
        margin = 0.06 * max(rgb.shape)
        for i, (row, col) in enumerate(pixels, 1):
            # Keep the sign away from the border, so that it does not cover the next panel.
            y = min(max(row, margin), rgb.shape[0] - margin)
            x = min(max(col, margin), rgb.shape[1] - margin)
            axes[0, 0].annotate(
                str(i),
                (x, y),
                fontsize=7,
                weight="bold",
                ha="center",
                va="center",
                bbox={"boxstyle": "circle,pad=0.15", "fc": "white", "ec": "black", "lw": 0.5},
            )
        axes[0, 0].set_title("places")
    for i, (upper, lower) in enumerate(panels.T):
        upper.plot(x_S, reference_PS[i], color="black", linewidth=1.8, alpha=0.45)
        lower.axhline(0, color="black", linewidth=0.6)
        for place, spectra_PS in enumerate(methods.values()):
            upper.plot(x_S, spectra_PS[i], **line_style(place))
            lower.plot(x_S, spectra_PS[i] - reference_PS[i], **line_style(place))
        row, col = pixels[i]
        upper.set_title(f"{i + 1}: row {row + origin[0]}, column {col + origin[1]}")
        lower.set_xlabel("band" if wavelengths_nm is None else "wavelength (nm)")
        lower.sharey(panels[1, 0])
    panels[0, 0].set_ylabel("reflectance")
    panels[1, 0].set_ylabel("error")
    legend_above(figure, panels[0, 0].lines, ["reference", *methods])
    figure.align_ylabels(panels[:, 0])
    return figure
