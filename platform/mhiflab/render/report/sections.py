"""States, results and statistics of a report as plain values for its template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from feinfn.errors import UserError
from mhiflab.plan.forecast import clock
from mhiflab.plan.plan import Entry, Plan, labels_of
from mhiflab.render.metrics import METRICS
from mhiflab.render.runs import Results
from mhiflab.render.statistics.comparison import compare_methods
from mhiflab.render.statistics.verdicts import TEST_NOTE, baseline_case
from mhiflab.render.tables.rows import number_text, ranks, rows
from mhiflab.render.tables.table import heading


@dataclass(frozen=True)
class Cell:
    """A text, with what a template marks: a state or a best number, and a smaller text below."""

    text: str
    mark: str = ""
    below: str = ""
    value: float | None = None
    """What a column of numbers is sorted by."""


@dataclass(frozen=True)
class Grid:
    """A table: its head, and rows of which the first cells are names."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1


@dataclass(frozen=True)
class Statistics:
    """Sentences on every method against the baseline, and what limits them."""

    verdicts: dict[str, list[str]]
    warnings: list[str]


def with_distinct_labels(plan: Plan) -> Plan:
    """Return the plan with a label of its own for every case."""
    labels = labels_of(plan.entries)
    entries = [replace(e, trial=replace(e.trial, label=labels[e.trial.case])) for e in plan.entries]
    return replace(plan, entries=tuple(entries))


def state_grid(plan: Plan) -> Grid:
    """Return every trial's state, with epochs, last validation PSNR and training time."""
    seeds = plan.study.seeds
    rows: dict[str, dict[int, Entry]] = {}
    for entry in plan.entries:
        rows.setdefault(entry.trial.label, {})[entry.trial.spec.seed] = entry
    cells = [
        [Cell(label), *(_state(by[s]) if s in by else Cell("") for s in seeds)]
        for label, by in rows.items()
    ]
    return Grid(["Case", *(f"Seed {seed}" for seed in seeds)], cells)


def _state(entry: Entry) -> Cell:
    metrics = entry.run.data.metrics if entry.run else {}
    parts = []
    if "epoch" in metrics:
        parts.append(f"{metrics['epoch']:.0f}/{entry.trial.spec.train.epochs} epochs")
    if "val_psnr" in metrics:
        parts.append(f"{metrics['val_psnr']:.2f} dB")
    if "train_seconds" in metrics:
        parts.append(clock(metrics["train_seconds"]))
    return Cell(entry.state, entry.state, " · ".join(parts))


def result_grid(plan: Plan, results: Results) -> Grid:
    """Return the study's table: means, deviations over seeds (over images), the best marked."""
    # All entries, because a row that lacks runs is not marked.
    every = rows(replace(results, entries=plan.entries))
    table, metrics = [row for row in every if row.cells], results.metrics
    marks = {metric: ranks(table, metric) for metric in metrics}
    lines = []
    for place, row in enumerate(table):
        trained = [seed for seed in row.runs if seed]
        seeds = f"{len(trained)} of {len(plan.study.seeds)}" if trained else "–"
        cells = [Cell(row.label), Cell(seeds)]
        for m in metrics:
            own, digits = row.cells[m], METRICS[m].digits
            spreads = []
            if own.over_seeds is not None:
                spreads.append(f"± {own.over_seeds:.{digits}f}")
            if own.over_images is not None:
                spreads.append(f"({own.over_images:.{digits}f})")
            # A blank keeps the means below each other.
            below = " ".join(spreads) or "\u00a0"
            mark = "best" if marks[m][place] == "best" else ""
            cells.append(Cell(number_text(own.mean, digits), mark, below))
        lines.append(cells)
    return Grid(["Method", "Seeds", *_heads(metrics)], lines)


def image_grid(results: Results) -> Grid:
    """Return the metrics of every image, method and seed; the upsampled LR-HSI once an image."""
    upsampled = results.upsampled().assign(method=results.upsampled_label, seed=math.nan)
    lines = []
    for _, row in pd.concat([upsampled, results.fused()]).iterrows():
        seed = -1 if pd.isna(row["seed"]) else int(row["seed"])
        told = Cell("–" if seed < 0 else str(seed), value=seed)
        cells = [Cell(str(row["scene"])), Cell(str(row["method"])), told]
        cells += [Cell(f"{row[m]:.{METRICS[m].digits}f}", value=row[m]) for m in results.metrics]
        lines.append(cells)
    return Grid(["Image", "Method", "Seed", *_heads(results.metrics)], lines, names=2)


def _heads(metrics: list[str]) -> list[str]:
    return [f"{heading(m)} {'↑' if METRICS[m].higher_is_better else '↓'}" for m in metrics]


def statistics(results: Results, baseline: str = "") -> Statistics:
    """Compare every case with the baseline, by default the first, on the seeds that all have."""
    fused = results.fused()
    # A method that is not trained stands beside every seed.
    by_case = [set(rows["seed"]) for _, rows in fused.dropna(subset="seed").groupby("case")]
    shared = set.intersection(*by_case) if by_case else set()
    warnings = []
    if left := sorted(int(seed) for seed in set().union(*by_case) - shared):
        told = ", ".join(map(str, left))
        warnings.append(f"Seeds {told} are left out: not every case has a finished run of them.")
    frame = fused[fused["seed"].isin(shared) | fused["seed"].isna()]
    labels = results.labels
    methods = list(labels.values())
    if len(methods) < 2 or (by_case and not shared):
        what = "one case with finished runs" if len(methods) < 2 else "no seed that all cases have"
        return Statistics({}, [*warnings, f"There is {what}: nothing to compare."])
    try:
        first = labels[baseline_case(results, baseline)]
        found = compare_methods(frame, results.metrics, methods, first)
    except UserError as error:
        return Statistics({}, [*warnings, f"Not compared: {error}"])
    verdicts: dict[str, list[str]] = {}
    for one in found:
        verdicts.setdefault(one.method, []).append(one.verdict())
        warnings += [text for text in one.warnings() if text not in warnings]
    return Statistics(verdicts, [*warnings, TEST_NOTE])
