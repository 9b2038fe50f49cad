"""Validation metrics over optimiser steps, one band a case over its seeds."""

from dataclasses import dataclass
from typing import Literal

import pandas as pd

from feinfn.errors import UserError
from mhiflab.estimate import steps_per_epoch
from mhiflab.figures.kind import Cases, Drawn, about
from mhiflab.plan import Entry
from mhiflab.plots.curves import curves_figure
from mhiflab.recorded import Recorded
from mhiflab.tables import heading


@dataclass(frozen=True, kw_only=True)
class CurvesOptions(Cases):
    """Options of the curves."""

    metric: Literal["psnr", "sam", "ergas", "ssim"] = "psnr"
    """Metric of the validation scenes."""


def draw_curves(recorded: Recorded, options: CurvesOptions) -> Drawn:
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
    per_epoch = [_steps(entry) for entry, _ in found]
    told = None not in per_epoch
    rows = []
    for (entry, history), steps in zip(found, per_epoch, strict=True):
        who = about(entry, recorded.labels[entry.trial.case])
        rows += [
            who | {"epoch": epoch, "step": epoch * (steps if told and steps else 1), "value": value}
            for epoch, value in sorted(history.items())
        ]
    numbers = pd.DataFrame(rows).assign(metric=options.metric)
    figure = curves_figure(
        numbers.rename(columns={"label": "method"}),
        "iteration" if told else "epoch",
        f"validation {heading(options.metric)}",
    )
    return Drawn(figure, numbers if told else numbers.drop(columns="step"))


def _steps(entry: Entry) -> int | None:
    """Return the optimiser steps of an epoch; None where prepared files alone know their number."""
    spec = entry.trial.spec
    if entry.survey is None or spec.data.inputs == "stored":
        return None
    return steps_per_epoch(spec, entry.survey)
