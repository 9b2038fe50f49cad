"""Validation metrics over optimiser steps or time, with a band over the seeds of each case."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from feinfn.errors import UserError
from mhiflab.plan.forecast import steps_per_epoch
from mhiflab.plan.plan import Entry, Plan
from mhiflab.render.figures.kind import Cases, Drawing, run_columns
from mhiflab.render.figures.style import COLUMN_IN, legend_above, line_style, new_figure, styled
from mhiflab.render.metrics import METRICS
from mhiflab.render.runs import figure_runs


@dataclass(frozen=True, kw_only=True)
class CurvesOptions(Cases):
    """Options of the curves."""

    metric: Literal["psnr", "sam", "ergas", "ssim"] = "psnr"
    """Metric of the validation scenes."""
    over: Literal["iterations", "minutes"] = "iterations"
    """Optimiser steps, or minutes of training, averaged over a case's seeds at each epoch."""


def draw_curves(plan: Plan, options: CurvesOptions) -> Drawing:
    """Draw mean and standard deviation over all seeds of the study."""
    name = f"val_{options.metric}"
    histories = [(e, e.run.history(name)) for e in figure_runs(plan, options.cases)]
    untrained = [entry.trial.case for entry, history in histories if not history]
    # A method without training has no curve: an error if it was named, or if no case has one.
    if untrained and (options.cases or len(untrained) == len(histories)):
        raise UserError(
            f"{plan.path}: case {untrained[0]}: found no {name} on record, expected one "
            "value an epoch; choose cases that are trained: --option cases=[...]"
        )
    histories = [(entry, history) for entry, history in histories if history]
    numbers = pd.DataFrame(
        run_columns(entry, plan.labels[entry.trial.case]) | {"epoch": epoch, "value": value}
        for entry, history in histories
        for epoch, value in sorted(history.items())
    ).assign(metric=options.metric)
    per_epoch = {entry.key: _steps(entry) for entry, _ in histories}
    points = numbers.rename(columns={"label": "method"})
    if options.over == "minutes":
        seconds = {entry.key: entry.run.history("train_seconds") for entry, _ in histories}
        rows = zip(numbers["run_key"], numbers["epoch"], strict=True)
        numbers["minutes"] = [seconds[key][epoch] / 60 for key, epoch in rows]
        minutes_by_epoch = numbers.groupby(["case", "epoch"])["minutes"]
        points["step"], x = minutes_by_epoch.transform("mean"), "training time (minutes)"
    elif None in per_epoch.values():
        points["step"], x = points["epoch"], "epoch"
    else:
        numbers["step"] = numbers["epoch"] * numbers["run_key"].map(per_epoch).astype(int)
        points["step"], x = numbers["step"], "iteration"
    return Drawing(
        curves_figure(points, x, f"validation {METRICS[options.metric].heading}"), numbers
    )


def _steps(entry: Entry) -> int | None:
    """Return the optimiser steps per epoch; None if only prepared files know their number."""
    spec = entry.trial.spec
    if entry.survey is None or spec.data.inputs == "stored":
        return None
    return steps_per_epoch(spec, entry.survey)


FEW = 20
"""Largest number of points for which a curve marks each of them."""


@styled
def curves_figure(
    history: pd.DataFrame, x: str = "iteration", y: str = "validation PSNR (dB)"
) -> Figure:
    """Draw the mean over seeds, and a band of one standard deviation if there are several.

    `history` has columns method, seed, value and step (the x values); methods are drawn in order of
    appearance. Steps that some seed of a method has not reached are left out, because the mean
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
    seed_counts = "–".join(str(n) for n in sorted({min(counts), max(counts)}))
    several = f"mean of {seed_counts} seeds ± standard deviation"
    axis.set_title(several if max(counts) > 1 else "1 seed", loc="right")
    axis.xaxis.set_major_locator(
        MaxNLocator(6, integer=pd.api.types.is_integer_dtype(history["step"]))
    )
    legend_above(figure, axis.lines, [str(name) for name in history["method"].unique()])
    return figure
