"""Spectra of chosen pixels of several cases against the reference."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from feinfn.analysis.spectra import angles_deg, distinct_pixels, spectra_at
from feinfn.config import require
from feinfn.data.images import pseudo_rgb
from mhiflab.figures.kind import Drawn, Images, about
from mhiflab.plan.plan import upsampled_label
from mhiflab.plots.spectra import spectra_figure
from mhiflab.plots.style import COLOURS
from mhiflab.recorded import Recorded


@dataclass(frozen=True, kw_only=True)
class SpectraOptions(Images):
    """Options of the spectra."""

    pixels: tuple[tuple[int, int], ...] = ()
    """Rows and columns in the whole test image; none: `count` pixels of different materials."""
    count: int = 3
    """Pixels to be chosen."""
    upsampled: bool | None = None
    """Draw the upsampled LR-HSI too; null: where lines are left that can be told apart."""


def draw_spectra(recorded: Recorded, options: SpectraOptions) -> Drawn:
    """Draw spectra from the part of the first test image that runs keep with all bands."""
    entries = recorded.of_one_seed(options.cases, options.seed)
    windows = [recorded.window(entry, options.scene) for entry in entries]
    first, nm = windows[0], windows[0].wavelengths_nm
    reference_SHW = first.pair(entries[0].who).reference_BSHW[0].numpy()
    (top, left), (height, width) = first.place, reference_SHW.shape[1:]
    pixels = [(row - top, col - left) for row, col in options.pixels]
    for (row, col), given in zip(pixels, options.pixels, strict=True):
        inside = 0 <= row < height and 0 <= col < width
        kept = f"rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
        require(inside, "option pixels", list(given), f"a place kept with all bands: {kept}")
    pixels = pixels or distinct_pixels(reference_SHW, options.count)
    told = [
        (about(entry, recorded.labels[entry.trial.case]), window.fused_SHW)
        for entry, window in zip(entries, windows, strict=True)
    ]
    if options.upsampled or (options.upsampled is None and len(told) < len(COLOURS)):
        upsampled_SHW = first.inputs.lms_BSHW[0].numpy()
        who = about(entries[0], upsampled_label(recorded.plan.entries))
        told.insert(0, (who, upsampled_SHW))
    reference_PS = spectra_at(reference_SHW, pixels)
    methods, rows = {}, []
    for who, image_SHW in told:
        methods[who["label"]] = found_PS = spectra_at(image_SHW, pixels)
        angles_P = angles_deg(found_PS, reference_PS)
        for i, (row, col) in enumerate(pixels):
            table = pd.DataFrame(
                {
                    "band": np.arange(1, len(reference_SHW) + 1),
                    "wavelength_nm": np.nan if nm is None else nm,
                    "reference": reference_PS[i],
                    "found": found_PS[i],
                }
            )
            place = {"pixel": i + 1, "row": row + top, "column": col + left}
            rows.append(table.assign(**who, scene=first.scene, **place, angle_deg=angles_P[i]))
    rgb = pseudo_rgb(reference_SHW, nm)
    figure = spectra_figure(reference_PS, methods, pixels, nm, rgb, first.place)
    return Drawn(figure, pd.concat(rows, ignore_index=True))
