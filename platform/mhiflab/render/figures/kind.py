"""Interface of the kinds of figures: options, and the drawing that each returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from feinfn.fields import Settings
from mhiflab.plan.plan import Entry, Finished, Plan
from mhiflab.record.artifacts import FUSED, metrics_of
from mhiflab.render.metrics import METRICS


@dataclass(frozen=True)
class Drawing:
    """A figure and the numbers behind it."""

    figure: Figure
    numbers: pd.DataFrame


@dataclass(frozen=True)
class Kind:
    """A kind of figure: its options, and the function that draws it from records."""

    options: type[Any]
    draw: Callable[[Plan, Any], Drawing]


@dataclass(frozen=True, kw_only=True)
class Cases(Settings):
    """Options of figures of several cases."""

    cases: tuple[str, ...] = ()
    """Names of the cases in the order of drawing; empty: all of the study."""


@dataclass(frozen=True, kw_only=True)
class Images(Cases):
    """Options of figures of several cases' images."""

    seed: int | None = None
    """Seed of the runs; null: the study's first."""
    scene: str | None = None
    """Name of the test image; null: the first."""


@dataclass(frozen=True, kw_only=True)
class Network(Settings):
    """Options of figures of one trained network."""

    case: str | None = None
    """Name of the case; null: the first with the part that the figure shows."""
    seed: int | None = None
    """Seed of the run; null: the study's first."""


def metric_note(values: Mapping[str, Any]) -> str:
    """Return the first two metrics of an image on two lines, with their units or names."""
    names = metrics_of(values["convention"])[:2]
    labels = [METRICS[name] for name in names]
    numbers = [f"{values[name]:.{METRICS[name].digits}f}" for name in names]
    return "\n".join(
        f"{number}{label.sign}" if label.sign else f"{label.name} {number}"
        for label, number in zip(labels, numbers, strict=True)
    )


def run_columns(entry: Entry, label: str) -> dict[str, Any]:
    """Return the columns that identify a run in a figure's numbers."""
    trial = entry.trial
    return {"label": label, "case": trial.case, "seed": trial.spec.seed, "run_key": entry.key}


def metric_row(plan: Plan, entry: Finished, scene: str, method: str = FUSED) -> dict[str, Any]:
    """Return one test image's metrics of a run, with the columns that identify them."""
    fused = method == FUSED
    label = plan.labels[entry.trial.case] if fused else plan.upsampled_label
    columns = run_columns(entry, label) | {"scene": scene, "method": method}
    return columns | dict(entry.run.means(scene, method))
