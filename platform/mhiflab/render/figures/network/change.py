"""Reach of a local change, in space or in frequency, in the fused image."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from feinfn.analysis.change import (
    Place,
    change_bin,
    change_pixel,
    effect_of,
    reach,
    scale_conjugates,
)
from feinfn.config import ModelConfig
from feinfn.errors import require
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Drawing, Network, run_columns
from mhiflab.render.figures.style import MAPS, TEXT_IN, new_figure, show_image, styled, wrapped
from mhiflab.render.runs import network_run, trained_feinfn

CHANGED = 0.01
"""Share of the largest change above which a pixel counts as changed."""


@dataclass(frozen=True, kw_only=True)
class ChangeOptions(Network):
    """Options of the changes."""

    factor: float = 1.5
    """Factor for the pixel, or for the amplitude or phase of the frequency."""
    pixel: tuple[int, int] | None = None
    """Row and column in the LR code of the kept part; null: its middle."""
    frequency: tuple[int, int] | None = None
    """Periods along rows and columns of the kept part; the conjugate changes too; null: 2 and 3, or
    as many as the LR code has."""


def draw_change(plan: Plan, options: ChangeOptions) -> Drawing:
    """Draw the change of the fused image if one pixel or one frequency of a network changes.

    Both are changed in the LR code, and the frequency also in the fused amplitude and phase.
    """
    entry = network_run(
        plan, options.case, options.seed, "a Fourier branch", lambda m: m.fourier_branch
    )
    window, model = entry.run.window(), trained_feinfn(entry)
    height, width = window.inputs.lr_hsi_BShw.shape[2:]
    factor = options.factor
    valid = math.isfinite(factor) and factor != 1
    require(valid, "option factor", factor, "a finite number other than 1")
    pixel = options.pixel or (height // 2, width // 2)
    frequency = options.frequency or (min(2, (height - 1) // 2), min(3, (width - 1) // 2))
    changes: dict[str, tuple[Place, tuple[int, int], Callable[[Tensor], Tensor]]] = {
        "LR code, one pixel": ("code", pixel, lambda x: change_pixel(x, *pixel, factor)),
        "LR code, one frequency": ("code", frequency, lambda x: change_bin(x, *frequency, factor)),
    }
    for part in _fused_parts(model.config):
        changes[f"fused {part}, one frequency"] = (
            part,
            frequency,
            lambda x: scale_at(x, frequency, factor, model.config.spectrum_origin == "centre"),
        )
    maps, rows = {}, []
    for label, (place, position, change) in changes.items():
        maps[label] = change_HW = effect_of(model, window.inputs, place, change)
        largest = float(change_HW.max())
        rows.append(
            {
                "change": label,
                "place": place,
                "row": position[0],
                "column": position[1],
                "factor": factor,
                "largest": largest,
                "mean": float(change_HW.mean(dtype=np.float64)),
                "share_above_1_percent": float((change_HW > CHANGED * largest).mean()),
                "reach": reach(change_HW),
            }
        )
    columns = run_columns(entry, plan.labels[entry.trial.case]) | {"scene": window.scene}
    numbers = pd.DataFrame(rows).assign(**columns)
    shares = dict(zip(numbers["change"], numbers["reach"], strict=True))
    return Drawing(change_figure(maps, shares), numbers)


def _fused_parts(config: ModelConfig) -> list[Place]:
    """Return the parts that the Fourier branch fuses by a network, which a figure can change."""
    parts: dict[Place, bool] = {"amplitude": config.fuse_amplitude, "phase": config.fuse_phase}
    return [part for part, fused in parts.items() if fused]


def scale_at(x_BCHW: Tensor, at: tuple[int, int], factor: float, centred: bool) -> Tensor:
    """Return amplitudes or phases with one frequency multiplied by a factor.

    `centred` tells if frequency zero is in the middle.
    """
    if not centred:
        return scale_conjugates(x_BCHW, *at, factor)
    axes = (-2, -1)
    changed = scale_conjugates(torch.fft.ifftshift(x_BCHW, axes), *at, factor)
    return torch.fft.fftshift(changed, axes)


DECADES = 4
"""Decades below the largest change that a map shows."""

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
"""Raised letters of exponents."""


@styled
def change_figure(
    changes: Mapping[str, np.ndarray], reaches: Mapping[str, float] | None = None
) -> Figure:
    """Draw maps of absolute changes [H, W], each in decades below its largest.

    `reaches` is the share of the image over which each change is spread; it is written below.
    """
    count = len(changes)
    each = (TEXT_IN - 0.6) / count
    first = next(iter(changes.values()))
    figure = new_figure(TEXT_IN, each * first.shape[0] / first.shape[1] + 0.6)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, (label, change) in zip(axes, changes.items(), strict=True):
        largest = float(np.abs(change).max()) or 1.0
        with np.errstate(divide="ignore"):
            decades = np.maximum(np.log10(np.abs(change.astype(np.float64)) / largest), -DECADES)
        image = show_image(axis, decades, cmap=MAPS["amplitude"], vmin=-DECADES, vmax=0)
        axis.set_title(wrapped(label, max(8, int(each * 14))))
        note = f"largest {largest:.1e}"
        if reaches is not None:
            note += f"\nreach {100 * reaches[label]:.2g} %"
        axis.set_xlabel(note)
    bar = figure.colorbar(image, ax=axes.tolist(), extend="min", pad=0.01, shrink=0.9)
    powers = range(-DECADES, 1)
    bar.set_ticks(powers, labels=[f"10{str(n).translate(RAISED)}" for n in powers])
    bar.set_label("change, relative")
    return figure
