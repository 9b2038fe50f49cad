"""Rows of a table in numbers: means, spreads, costs and the keys of their runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import Any

import pandas as pd

from feinfn.metrics.label import LABELS
from mhiflab.plan.plan import Entry, Finished
from mhiflab.record.artifacts import FUSE_MEMORY, FUSE_SECONDS
from mhiflab.render.runs import Results

COST_PX = 512
"""Side of the image for which a table counts operations."""


@dataclass(frozen=True)
class Column:
    """A column of costs beside the metrics."""

    heading: str
    digits: int
    """Decimals."""
    unit: float = 1.0
    """Divisor of the values."""


COSTS = {
    "parameters": Column("Parameters (M)", 3, 1e6),
    "flops": Column(f"GFLOP at {COST_PX} px", 1, 1e9),
    "seconds": Column("Time (s/image)", 2),
    "memory": Column("Memory (MiB)", 0),
}
"""Columns of costs: two from a method's configuration, two as its runs measured them."""


@dataclass(frozen=True)
class Cell:
    """One metric of one method: mean over images and seeds, and spread over each."""

    mean: float
    std_over_seeds: float | None
    """Standard deviation over seeds of the mean over images; None below two seeds or if the mean
    is not finite."""
    std_over_images: float | None
    """Standard deviation over images of the mean over seeds; None below two images or if the mean
    is not finite."""
    by_seed: dict[str, float]
    """Mean over images by seed; the key is empty for a method without seeds."""


@dataclass(frozen=True)
class Row:
    """One method under one protocol; its fields are those of the sidecar JSON."""

    method: str
    """Label."""
    case: str | None = None
    """Name of the case; None for the upsampled LR-HSI."""
    runs: dict[str, str] = field(default_factory=dict)
    """Keys of the finished runs by seed."""
    runs_lacking: int = 0
    """Number of runs that are not finished."""
    values: dict[str, Cell] = field(default_factory=dict)
    """Cells by metric; empty if no run is finished."""
    costs: dict[str, float] = field(default_factory=dict)
    """Costs by name in `COSTS`: parameters, operations, seconds, MiB."""


def _deviation(values: Sequence[float]) -> float | None:
    # These sums are exactly rounded, so that every machine gives the same bits.
    mean = fmean(values)
    if len(values) < 2 or not math.isfinite(mean):
        return None
    return math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1))


def _seed(value: Any) -> str:
    return "" if pd.isna(value) else str(int(value))


def _cell(rows: pd.DataFrame, metric: str) -> Cell:
    by_seed = rows.groupby("seed", sort=True, dropna=False)[metric].agg(list)
    by_scene = rows.groupby("scene", sort=True)[metric].agg(list)
    means = {_seed(seed): fmean(values) for seed, values in by_seed.items()}
    return Cell(
        fmean(list(means.values())),
        _deviation(list(means.values())),
        _deviation([fmean(values) for values in by_scene]),
        means,
    )


def _costs(entries: Sequence[Entry], names: Sequence[str]) -> dict[str, float]:
    spec = entries[0].trial.spec
    known_costs: dict[str, float] = {}
    if spec.trained and {"parameters", "flops"} & set(names):
        # Not above: other tables need no torch.
        from feinfn.methods.cost import flop_per_pixel, parameters_of

        known_costs["parameters"] = parameters_of(spec.model)
        known_costs["flops"] = flop_per_pixel(spec.model, spec.protocol.ratio) * COST_PX**2
    for name, metric in (("seconds", FUSE_SECONDS), ("memory", FUSE_MEMORY)):
        run_metrics = [entry.run.metrics for entry in entries if entry.run is not None]
        measured = [metrics[metric] for metrics in run_metrics if metric in metrics]
        if measured:
            known_costs[name] = median(measured)
    return known_costs


def rows(results: Results, costs: Sequence[str] = ()) -> list[Row]:
    """Return one row per method in the order of the file, after the upsampled LR-HSI.

    `costs` are the names in `COSTS` that the table shows.
    """
    upsampled = results.upsampled().assign(seed=math.nan)
    values = {metric: _cell(upsampled, metric) for metric in results.metrics}
    table = [Row(results.plan.upsampled_label, values=values)]
    fused = results.fused()
    for case, label in results.plan.labels.items():
        entries = [e for e in results.plan.entries if e.trial.case == case]
        case_images = fused[fused["case"] == case]
        done = [e for e in entries if isinstance(e, Finished)]
        table.append(
            Row(
                label,
                case,
                {str(e.trial.spec.seed) if e.trial.spec.trained else "": e.key for e in done},
                len(entries) - len(done),
                {metric: _cell(case_images, metric) for metric in results.metrics} if done else {},
                _costs(entries, costs),
            )
        )
    return table


def ranks(table: Sequence[Row], metric: str) -> list[str]:
    """Return "best", "second" or an empty text for every row; equal means share a rank.

    Ignore rows that lack runs and means that are not finite. Mark a second only if at least three
    rows compete.
    """
    means = [
        row.values[metric].mean if row.values and not row.runs_lacking else math.nan
        for row in table
    ]
    competing = [mean for mean in means if math.isfinite(mean)]
    order = sorted(set(competing), reverse=LABELS[metric].higher_is_better)
    names = dict(zip(order, ("best", "second")[: 2 if len(competing) > 2 else 1], strict=False))
    return [names.get(mean, "") for mean in means]
