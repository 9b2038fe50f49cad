"""Validation metrics over optimiser steps or time, with a band over the seeds of each case."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from feinfn.errors import UserError
from feinfn.metrics.label import LABELS
from mhiflab.plan.forecast import steps_per_epoch
from mhiflab.plan.plan import Entry, Plan
from mhiflab.render.figures.kind import Cases, Drawing, run_columns
from mhiflab.render.figures.style import COLUMN_IN, legend_above, line_style, new_figure, styled
from mhiflab.render.runs import chosen_entries

FEW = 20
"""Largest number of points for which a curve marks each of them."""


@dataclass(frozen=True, kw_only=True)
class Curves(Cases):
    """Mean and standard deviation of a validation metric over all seeds of the study."""

    metric: Literal["psnr", "sam", "ergas", "ssim"] = "psnr"
    """Metric of the validation scenes."""
    over: Literal["iterations", "minutes"] = "iterations"
    """Optimiser steps, or minutes of training, averaged over a case's seeds at each epoch."""

    def draw(self, plan: Plan) -> Drawing:
        name = f"val_{self.metric}"
        runs = plan.complete(chosen_entries(plan, self.cases))
        histories = [(e, e.run.history(name)) for e in runs]
        untrained = [entry.trial.case for entry, history in histories if not history]
        # A method without training has no curve: an error if it was named, or if no case has one.
        if untrained and (self.cases or len(untrained) == len(histories)):
            raise UserError(
                f"{plan.path}: case {untrained[0]}: found no {name} on record, expected "
                "one value an epoch; choose cases that are trained: --option cases=[...]"
            )
        rows = [
            run_columns(plan, entry) | {"epoch": epoch, "value": value, "metric": self.metric}
            for entry, history in histories
            for epoch, value in sorted(history.items())
        ]
        numbers = pd.DataFrame(rows)
        trained = [entry for entry, history in histories if history]
        per_epoch = {entry.key: _steps(entry) for entry in trained}
        x = "iteration"
        if self.over == "minutes":
            seconds = {entry.key: entry.run.history("train_seconds") for entry in trained}
            numbers["minutes"] = [seconds[r["run_key"]][r["epoch"]] / 60 for r in rows]
            at = numbers.groupby(["case", "epoch"])["minutes"].transform("mean")
            x = "training time (minutes)"
        elif None in per_epoch.values():
            at, x = numbers["epoch"], "epoch"
        else:
            numbers["step"] = [r["epoch"] * per_epoch[r["run_key"]] for r in rows]
            at = numbers["step"]
        points = numbers.rename(columns={"label": "method"}).assign(step=at)
        y = f"validation {LABELS[self.metric].heading}"
        return curves_figure(points, x, y), numbers


def _steps(entry: Entry) -> int | None:
    """Return the optimiser steps per epoch; None if only prepared files know their number."""
    spec = entry.trial.spec
    if entry.survey is None or spec.data.inputs == "stored":
        return None
    return steps_per_epoch(spec, entry.survey)


@styled
def curves_figure(
    history: pd.DataFrame, x: str = "iteration", y: str = "validation PSNR (dB)"
) -> Figure:
    """Draw the mean over seeds, and a band of one standard deviation if there are several.

    `history` has columns method, seed, value and step (the x values); methods are drawn in order of
    appearance. Steps that some seed of a method has not reached are left out, because the mean
    would jump.
    """
    figure = new_figure(2.2, COLUMN_IN)
    axis = figure.subplots()
    counts = []
    for place, (_, rows) in enumerate(history.groupby("method", sort=False)):
        table = rows.pivot(index="step", columns="seed", values="value").sort_index().dropna()
        mean, std, style = table.mean(axis=1), table.std(axis=1), line_style(place)
        axis.plot(mean.index, mean, marker="o" if len(mean) <= FEW else None, **style)
        counts.append(table.shape[1])
        if table.shape[1] > 1:
            band = {"color": style["color"], "alpha": 0.2, "linewidth": 0}
            axis.fill_between(mean.index, mean - std, mean + std, **band)
    axis.set(xlabel=x, ylabel=y)
    seed_counts = "–".join(str(n) for n in sorted({min(counts), max(counts)}))
    several = f"mean of {seed_counts} seeds ± standard deviation"
    axis.set_title(several if max(counts) > 1 else "1 seed", loc="right")
    integers = pd.api.types.is_integer_dtype(history["step"])
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=integers))
    legend_above(figure, axis.lines, [str(name) for name in history["method"].unique()])
    return figure
