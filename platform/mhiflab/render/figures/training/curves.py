"""Validation metrics over optimiser steps or time, one band a case over its seeds."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from feinfn.errors import UserError
from mhiflab.plan.forecast import steps_per_epoch
from mhiflab.plan.plan import Entry
from mhiflab.render.figures.kind import Cases, Drawing, run_columns
from mhiflab.render.figures.style import COLUMN_IN, legend_above, line_style, new_figure, styled
from mhiflab.render.runs import RecordedStudy
from mhiflab.render.tables.table import heading

FEW = 20
"""Points up to which a curve shows each of them."""


@styled
def curves_figure(
    history: pd.DataFrame, x: str = "iteration", y: str = "validation PSNR (dB)"
) -> Figure:
    """Draw the mean over seeds, and a band of one standard deviation where there are several.

    `history` has columns method, seed, value and step, what the values stand over; methods in
    order of appearance. Steps that not every seed of a method reached are left out, as their mean
    would jump.
    """
    figure = new_figure(COLUMN_IN, 2.2)
    axis = figure.subplots()
    counts: set[int] = set()
    for place, (_, rows) in enumerate(history.groupby("method", sort=False)):
        table = rows.pivot(index="step", columns="seed", values="value").sort_index().dropna()
        mean, seeds = table.mean(axis=1), table.shape[1]
        marker = "o" if len(mean) <= FEW else None
        axis.plot(mean.index, mean, marker=marker, **line_style(place))
        counts.add(seeds)
        if seeds > 1:
            std, colour = table.std(axis=1, ddof=1), line_style(place)["color"]
            axis.fill_between(
                mean.index, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0
            )
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    told = "–".join(str(n) for n in sorted({min(counts), max(counts)}))
    several = f"mean of {told} seeds ± standard deviation"
    axis.set_title(several if max(counts) > 1 else "1 seed", loc="right")
    axis.xaxis.set_major_locator(
        MaxNLocator(6, integer=pd.api.types.is_integer_dtype(history["step"]))
    )
    legend_above(figure, axis.lines, [str(name) for name in history["method"].unique()])
    return figure


@dataclass(frozen=True, kw_only=True)
class CurvesOptions(Cases):
    """Options of the curves."""

    metric: Literal["psnr", "sam", "ergas", "ssim"] = "psnr"
    """Metric of the validation scenes."""
    over: Literal["iterations", "minutes"] = "iterations"
    """Optimiser steps, or minutes of training: the mean of a case's seeds at each epoch."""


def draw_curves(recorded: RecordedStudy, options: CurvesOptions) -> Drawing:
    """Draw the mean over seeds and one standard deviation, with every seed of the study."""
    name = f"val_{options.metric}"
    found = [(e, recorded.history(e, name)) for e in recorded.entries(options.cases)]
    untrained = [entry.trial.case for entry, history in found if not history]
    # A method that learns nothing has no curve; only who asks for it by name is told.
    if untrained and (options.cases or len(untrained) == len(found)):
        raise UserError(
            f"{recorded.plan.path}: case {untrained[0]}: found no {name} on record, expected one "
            "value an epoch; choose cases that are trained: --option cases=[...]"
        )
    found = [(entry, history) for entry, history in found if history]
    numbers = pd.DataFrame(
        run_columns(entry, recorded.labels[entry.trial.case]) | {"epoch": epoch, "value": value}
        for entry, history in found
        for epoch, value in sorted(history.items())
    ).assign(metric=options.metric)
    per_epoch = {entry.key: _steps(entry) for entry, _ in found}
    shown = numbers.rename(columns={"label": "method"})
    if options.over == "minutes":
        seconds = {entry.key: recorded.history(entry, "train_seconds") for entry, _ in found}
        rows = zip(numbers["run_key"], numbers["epoch"], strict=True)
        numbers["minutes"] = [seconds[key][epoch] / 60 for key, epoch in rows]
        of_case = numbers.groupby(["case", "epoch"])["minutes"]
        shown["step"], x = of_case.transform("mean"), "training time (minutes)"
    elif None in per_epoch.values():
        shown["step"], x = shown["epoch"], "epoch"
    else:
        numbers["step"] = numbers["epoch"] * numbers["run_key"].map(per_epoch).astype(int)
        shown["step"], x = numbers["step"], "iteration"
    return Drawing(curves_figure(shown, x, f"validation {heading(options.metric)}"), numbers)


def _steps(entry: Entry) -> int | None:
    """Return the optimiser steps of an epoch; None where prepared files alone know their number."""
    spec = entry.trial.spec
    if entry.survey is None or spec.data.inputs == "stored":
        return None
    return steps_per_epoch(spec, entry.survey)
