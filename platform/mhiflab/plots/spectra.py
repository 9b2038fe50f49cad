"""Spectra of chosen pixels against the reference."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from mhiflab.plots.style import TEXT_IN, legend_above, look, new_figure, picture, styled


@styled
def spectra_figure(
    reference_PS: np.ndarray,
    methods: Mapping[str, np.ndarray],
    pixels: Sequence[tuple[int, int]],
    wavelengths_nm: np.ndarray | None = None,
    rgb: np.ndarray | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Figure:
    """Draw each pixel's spectra, and below what every method differs by from the reference.

    Spectra are [P, S]; without wavelengths the axis counts bands from 1. `rgb` shows where the
    pixels (row, column) lie; where it is a part of an image, `origin` is its first row and column
    there, which titles count from.
    """
    at = np.arange(1, reference_PS.shape[1] + 1) if wavelengths_nm is None else wavelengths_nm
    count = len(pixels) + (rgb is not None)
    figure = new_figure(TEXT_IN, 2.75)
    axes = figure.subplots(2, count, squeeze=False, sharex="col", height_ratios=(2, 1))
    panels = axes
    if rgb is not None:
        axes[1, 0].set_axis_off()
        picture(axes[0, 0], rgb)
        panels = axes[:, 1:]
        margin = 0.06 * max(rgb.shape)
        for i, (row, col) in enumerate(pixels, 1):
            # Beside the border, so that the sign does not cover the next panel.
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
        upper.plot(at, reference_PS[i], color="black", linewidth=1.8, alpha=0.45)
        lower.axhline(0, color="black", linewidth=0.6)
        for place, spectra_PS in enumerate(methods.values()):
            upper.plot(at, spectra_PS[i], **look(place))
            lower.plot(at, spectra_PS[i] - reference_PS[i], **look(place))
        row, col = pixels[i]
        upper.set_title(f"{i + 1}: row {row + origin[0]}, column {col + origin[1]}")
        lower.set_xlabel("band" if wavelengths_nm is None else "wavelength (nm)")
        lower.sharey(panels[1, 0])
    panels[0, 0].set_ylabel("reflectance")
    panels[1, 0].set_ylabel("error")
    legend_above(figure, panels[0, 0].lines, ["reference", *methods])
    figure.align_ylabels(panels[:, 0])
    return figure
