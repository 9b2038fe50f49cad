"""Spectra of several cases at some pixels, against the reference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feinfn.analysis.spectra import angles_deg, distinct_pixels, spectra_at
from feinfn.data.images import pseudo_rgb
from feinfn.errors import require
from feinfn.fields import Count
from mhiflab.plan.plan import Plan
from mhiflab.record.artifacts import UPSAMPLED
from mhiflab.render.figures import style
from mhiflab.render.figures.kind import Drawing, Images, run_columns
from mhiflab.render.runs import runs_of_one_seed


@dataclass(frozen=True, kw_only=True)
class Spectra(Images):
    """Spectra of the part of the first test image that runs keep with all bands."""

    pixels: tuple[tuple[int, int], ...] = ()
    """Rows and columns in the whole test image; empty: `count` pixels of different materials."""
    count: Count = 3
    """Number of pixels to choose."""
    upsampled: bool | None = None
    """Also draw the upsampled LR-HSI; null: if it gets a colour of its own."""

    def draw(self, plan: Plan) -> Drawing:
        entries = runs_of_one_seed(plan, self.cases, self.seed)
        windows = [entry.run.window(self.scene) for entry in entries]
        first, nm = windows[0], windows[0].wavelengths_nm
        reference_SHW = first.pair(entries[0].who).reference_BSHW[0].numpy()
        pixels = self._pixels_in(first.place, reference_SHW)
        images = [
            (run_columns(plan, entry), window.fused_SHW)
            for entry, window in zip(entries, windows, strict=True)
        ]
        if self.upsampled or (self.upsampled is None and len(images) < len(style.COLOURS)):
            columns = run_columns(plan, entries[0], UPSAMPLED)
            images.insert(0, (columns, first.inputs.lms_BSHW[0].numpy()))
        reference_PS = spectra_at(reference_SHW, pixels)
        methods, rows = {}, []
        for columns, image_SHW in images:
            methods[columns["label"]] = spectra_PS = spectra_at(image_SHW, pixels)
            angles_P = angles_deg(spectra_PS, reference_PS)
            for i, (row, col) in enumerate(pixels):
                spectra = {
                    "band": np.arange(1, len(reference_SHW) + 1),
                    "wavelength_nm": np.nan if nm is None else nm,
                    "reference": reference_PS[i],
                    "found": spectra_PS[i],
                }
                place = {"row": row + first.place[0], "column": col + first.place[1]}
                columns |= {"scene": first.scene, "pixel": i + 1, **place, "angle_deg": angles_P[i]}
                rows.append(pd.DataFrame(spectra | columns))
        rgb = pseudo_rgb(reference_SHW, nm)
        figure = spectra_figure(reference_PS, methods, pixels, nm, rgb, first.place)
        return figure, pd.concat(rows, ignore_index=True)

    def _pixels_in(
        self, origin: tuple[int, int], reference_SHW: np.ndarray
    ) -> list[tuple[int, int]]:
        """Return the pixels in the kept part, which begins at `origin` in the test image."""
        (top, left), (height, width) = origin, reference_SHW.shape[1:]
        kept = f"rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        for row, col in self.pixels:
            inside = top <= row < top + height and left <= col < left + width
            require(inside, "option pixels", [row, col], f"a place kept with all bands: {kept}")
        pixels = [(row - top, col - left) for row, col in self.pixels]
        return pixels or distinct_pixels(reference_SHW, self.count)


@style.styled
def spectra_figure(
    reference_PS: np.ndarray,
    methods: Mapping[str, np.ndarray],
    pixels: Sequence[tuple[int, int]],
    wavelengths_nm: np.ndarray | None,
    rgb: np.ndarray,
    origin: tuple[int, int],
) -> Figure:
    """Draw the places of pixels, each pixel's spectra, and below them the errors of every method.

    Spectra are [P, S]; without wavelengths the axis counts bands from 1. Pixels are rows and
    columns of `rgb`, which begins at `origin` in the image from which titles count.
    """
    x_S = np.arange(1, reference_PS.shape[1] + 1) if wavelengths_nm is None else wavelengths_nm
    figure = style.new_figure(2.75)
    axes = figure.subplots(2, len(pixels) + 1, sharex="col", height_ratios=(2, 1))
    axes[1, 0].set_axis_off()
    _draw_places(axes[0, 0], rgb, pixels)
    panels = axes[:, 1:]
    for i, (upper, lower) in enumerate(panels.T):
        upper.plot(x_S, reference_PS[i], color="black", linewidth=1.8, alpha=0.45)
        lower.axhline(0, color="black", linewidth=0.6)
        for place, spectra_PS in enumerate(methods.values()):
            upper.plot(x_S, spectra_PS[i], **style.line_style(place))
            lower.plot(x_S, spectra_PS[i] - reference_PS[i], **style.line_style(place))
        row, col = pixels[i]
        upper.set_title(f"{i + 1}: row {row + origin[0]}, column {col + origin[1]}")
        lower.set_xlabel("band" if wavelengths_nm is None else "wavelength (nm)")
        lower.sharey(panels[1, 0])
    panels[0, 0].set_ylabel("reflectance")
    panels[1, 0].set_ylabel("error")
    style.legend_above(figure, panels[0, 0].lines, ["reference", *methods])
    figure.align_ylabels(panels[:, 0])
    return figure


def _draw_places(axis: Axes, rgb: np.ndarray, pixels: Sequence[tuple[int, int]]) -> None:
    """Show an image with the number of every pixel."""
    style.show_image(axis, rgb, "places")
    margin, (height, width) = 0.06 * max(rgb.shape), rgb.shape[:2]
    for i, (row, col) in enumerate(pixels, 1):
        # Keep the sign away from the border, so that it does not cover the next panel.
        y = min(max(row, margin), height - margin)
        x = min(max(col, margin), width - margin)
        axis.annotate(
            str(i),
            (x, y),
            fontsize=7,
            weight="bold",
            ha="center",
            va="center",
            bbox={"boxstyle": "circle,pad=0.15", "fc": "white", "ec": "black", "lw": 0.5},
        )
