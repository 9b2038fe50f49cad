"""Error maps of several cases side by side, such as one per activation."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from feinfn.errors import UserError
from mhiflab.figures.kind import Drawn, Images, note, row_of
from mhiflab.plots.errors import errors_figure
from mhiflab.record.artifacts import FUSED, UPSAMPLED
from mhiflab.recorded import Recorded

UNITS = {"error": "mean absolute error", "sam": "spectral angle (deg)"}


@dataclass(frozen=True, kw_only=True)
class ErrorsOptions(Images):
    """Options of the error maps."""

    map: Literal["error", "sam"] = "error"
    """Absolute error averaged over bands, or spectral angle."""
    upsampled: bool = False
    """Draw the upsampled LR-HSI too."""


def draw_errors(recorded: Recorded, options: ErrorsOptions) -> Drawn:
    """Draw every case's errors of one test image on one scale."""
    entries = recorded.of_one_seed(options.cases, options.seed)
    scene = recorded.scene(entries, options.scene)
    drawn = [(entry, FUSED) for entry in entries]
    maps: dict[str, np.ndarray] = {}
    notes, rows = {}, []
    for entry, method in [(entries[0], UPSAMPLED)] * options.upsampled + drawn:
        key = f"{scene}/{method}/{options.map}"
        if key not in recorded.arrays(entry):
            raise UserError(
                f"{entry.who}: found no error map of test image {scene}, expected one; it has no "
                "reference: choose another (--option scene=...), or a study of simulated pairs"
            )
        values = row_of(recorded, entry, scene, method)
        error_HW = recorded.arrays(entry)[key].astype(np.float64)
        maps[values["label"]], notes[values["label"]] = error_HW, note(values)
        low, middle, high = np.nanpercentile(error_HW, (5, 50, 95))
        share = {"mean": np.nanmean(error_HW), "p5": low, "median": middle, "p95": high}
        rows.append(values | {"map": options.map, **share})
    return Drawn(errors_figure(maps, notes, UNITS[options.map]), pd.DataFrame(rows))
