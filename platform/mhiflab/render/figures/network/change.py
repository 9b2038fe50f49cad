"""Reach of a local change, in space or in frequency, in the fused image."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from feinfn.analysis import change as analysis
from feinfn.errors import require
from feinfn.fields import Finite
from mhiflab.plan.plan import Plan
from mhiflab.render.figures import style
from mhiflab.render.figures.kind import Drawing, Network, run_columns

CHANGED = 0.01
"""Share of the largest change above which a pixel counts as changed."""

DECADES = 4
"""Decades below the largest change that a map shows."""

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
"""Raised letters of exponents."""


@dataclass(frozen=True, kw_only=True)
class Change(Network):
    """Change of the fused image if one pixel or one frequency of a network changes.

    Both are changed in the LR code, and the frequency also in the fused amplitude and phase.
    """

    factor: Finite = 1.5
    """Factor for the pixel, or for the amplitude or phase of the frequency."""
    pixel: tuple[int, int] | None = None
    """Row and column in the LR code of the kept part; null: its middle."""
    frequency: tuple[int, int] | None = None
    """Periods along rows and columns of the kept part; the conjugate changes too; null: 2 and 3, or
    as many as the LR code has."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.factor != 1, "factor", self.factor, "a number other than 1")

    def draw(self, plan: Plan) -> Drawing:
        entry, model = self.trained(plan, "a Fourier branch", lambda m: m.fourier_branch)
        window = entry.run.window()
        height, width = window.inputs.lr_hsi_BShw.shape[2:]
        pixel = self.pixel or (height // 2, width // 2)
        frequency = self.frequency or (min(2, (height - 1) // 2), min(3, (width - 1) // 2))
        centred = model.config.spectrum_origin == "centre"
        scale = scale_centred if centred else analysis.scale_conjugates
        changes: dict[str, tuple[analysis.Place, tuple[int, int], Callable[..., Tensor]]] = {
            "LR code, one pixel": ("code", pixel, analysis.change_pixel),
            "LR code, one frequency": ("code", frequency, analysis.change_bin),
        }
        if model.config.fuse_amplitude:
            changes["fused amplitude, one frequency"] = ("amplitude", frequency, scale)
        if model.config.fuse_phase:
            changes["fused phase, one frequency"] = ("phase", frequency, scale)
        panels, rows = [], []
        for label, (place, (row, col), change) in changes.items():
            changed = partial(change, row=row, col=col, factor=self.factor)
            change_HW = analysis.effect_of(model, window.inputs, place, changed)
            largest, share = float(change_HW.max()), analysis.reach(change_HW)
            note = f"largest {largest:.1e}\nreach {100 * share:.2g} %"
            panels.append(style.Panel(label, change_HW, note=note))
            rows.append(
                {
                    "change": label,
                    "place": place,
                    "row": row,
                    "column": col,
                    "factor": self.factor,
                    "largest": largest,
                    "mean": float(change_HW.mean(dtype=np.float64)),
                    "share_above_1_percent": float((change_HW > CHANGED * largest).mean()),
                    "reach": share,
                }
            )
        columns = run_columns(plan, entry) | {"scene": window.scene}
        return change_figure(panels), pd.DataFrame(rows).assign(**columns)


def scale_centred(x_BCHW: Tensor, row: int, col: int, factor: float) -> Tensor:
    """Return what `scale_conjugates` does if frequency zero is in the middle."""
    axes = (-2, -1)
    changed = analysis.scale_conjugates(torch.fft.ifftshift(x_BCHW, axes), row, col, factor)
    return torch.fft.fftshift(changed, axes)


@style.styled
def change_figure(panels: Sequence[style.Panel]) -> Figure:
    """Draw maps of absolute changes, each in decades below its largest, with a note below."""
    each = (style.TEXT_IN - 0.6) / len(panels)
    height, width = panels[0].image.shape
    figure = style.new_figure(each * height / width + 0.6)
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    scale = {"cmap": style.MAPS["amplitude"], "vmin": -DECADES, "vmax": 0}
    for axis, panel in zip(axes, panels, strict=True):
        change = panel.image.astype(np.float64)
        with np.errstate(divide="ignore"):
            decades = np.maximum(np.log10(change / (change.max() or 1)), -DECADES)
        title = style.title_over(panel.title, each)
        image = style.show_image(axis, decades, title, panel.note, **scale)
    bar = figure.colorbar(image, ax=axes.tolist(), extend="min", pad=0.01, shrink=0.9)
    powers = range(-DECADES, 1)
    bar.set_ticks(powers, labels=[f"10{str(n).translate(RAISED)}" for n in powers])
    bar.set_label("change, relative")
    return figure
