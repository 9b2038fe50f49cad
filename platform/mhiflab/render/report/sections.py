"""States, results and statistics of a report as plain values for its template."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from feinfn.errors import UserError
from mhiflab.plan.forecast import clock
from mhiflab.plan.plan import Entry, Plan
from mhiflab.render.metrics import METRICS
from mhiflab.render.runs import Results
from mhiflab.render.statistics.comparison import compare_methods
from mhiflab.render.statistics.verdicts import TEST_NOTE, baseline_case
from mhiflab.render.tables.rows import number_text, ranks, rows


@dataclass(frozen=True)
class Cell:
    """A cell of a table for the template."""

    text: str
    mark: str = ""
    """A trial's state, "best" or "key"."""
    below: str = ""
    """Smaller text below."""
    value: float | None = None
    """Number by which a column is sorted."""


@dataclass(frozen=True)
class Grid:
    """A table: head and rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    names: int = 1
    """Number of leading cells of a row that are names."""


@dataclass(frozen=True)
class Statistics:
    """Verdicts on every method against the baseline, and warnings on their limits."""

    verdicts: dict[str, list[str]]
    """Sentences by method."""
    warnings: list[str]


def with_distinct_labels(plan: Plan) -> Plan:
    """Return the plan with a distinct label for every case."""
    entries = [
        replace(e, trial=replace(e.trial, label=plan.labels[e.trial.case])) for e in plan.entries
    ]
    return replace(plan, entries=tuple(entries))


def state_grid(plan: Plan) -> Grid:
    """Return a table of every trial's state, epochs, last validation PSNR and training time."""
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
    metrics = entry.run.metrics if entry.run else {}
    parts = []
    if "epoch" in metrics:
        parts.append(f"{metrics['epoch']:.0f}/{entry.trial.spec.train.epochs} epochs")
    if "val_psnr" in metrics:
        parts.append(f"{metrics['val_psnr']:.2f} dB")
    if "train_seconds" in metrics:
        parts.append(clock(metrics["train_seconds"]))
    return Cell(entry.state, entry.state, " · ".join(parts))


def result_grid(plan: Plan, results: Results) -> Grid:
    """Return the study's table: means, deviations over seeds (over images), best values marked."""
    # Pass all entries, because a row that lacks runs gets no mark.
    all_rows = rows(replace(results, plan=plan))
    table, metrics = [row for row in all_rows if row.cells], results.metrics
    marks = {metric: ranks(table, metric) for metric in metrics}
    lines = []
    for place, row in enumerate(table):
        trained = [seed for seed in row.runs if seed]
        seeds = f"{len(trained)} of {len(plan.study.seeds)}" if trained else "–"
        cells = [Cell(row.label), Cell(seeds)]
        for metric in metrics:
            cell, digits = row.cells[metric], METRICS[metric].digits
            spreads = []
            if cell.over_seeds is not None:
                spreads.append(f"± {cell.over_seeds:.{digits}f}")
            if cell.over_images is not None:
                spreads.append(f"({cell.over_images:.{digits}f})")
            # A blank line keeps the means at one height.
            below = " ".join(spreads) or "\u00a0"
            mark = "best" if marks[metric][place] == "best" else ""
            cells.append(Cell(number_text(cell.mean, digits), mark, below))
        lines.append(cells)
    return Grid(["Method", "Seeds", *_heads(metrics)], lines)


def image_grid(results: Results) -> Grid:
    """Return the metrics of every image, method and seed; the upsampled LR-HSI once per image."""
    upsampled = results.upsampled().assign(method=results.plan.upsampled_label, seed=math.nan)
    lines = []
    for _, row in pd.concat([upsampled, results.fused()]).iterrows():
        seed = -1 if pd.isna(row["seed"]) else int(row["seed"])
        seed_cell = Cell("–" if seed < 0 else str(seed), value=seed)
        cells = [Cell(str(row["scene"])), Cell(str(row["method"])), seed_cell]
        cells += [Cell(f"{row[m]:.{METRICS[m].digits}f}", value=row[m]) for m in results.metrics]
        lines.append(cells)
    return Grid(["Image", "Method", "Seed", *_heads(results.metrics)], lines, names=2)


def _heads(metrics: list[str]) -> list[str]:
    return [f"{METRICS[m].heading} {'↑' if METRICS[m].higher_is_better else '↓'}" for m in metrics]


def statistics(results: Results, baseline: str = "") -> Statistics:
    """Compare every case with the baseline, by default the first, on seeds that all cases have."""
    fused = results.fused()
    # A method without training is compared with every seed.
    by_case = [set(rows["seed"]) for _, rows in fused.dropna(subset="seed").groupby("case")]
    shared = set.intersection(*by_case) if by_case else set()
    warnings = []
    if unshared := sorted(int(seed) for seed in set().union(*by_case) - shared):
        numbers = ", ".join(map(str, unshared))
        warnings.append(f"Seeds {numbers} are left out: not every case has a finished run of them.")
    frame = fused[fused["seed"].isin(shared) | fused["seed"].isna()]
    labels = results.plan.labels
    methods = list(labels.values())
    if len(methods) < 2 or (by_case and not shared):
        reason = (
            "one case with finished runs" if len(methods) < 2 else "no seed that all cases have"
        )
        return Statistics({}, [*warnings, f"There is {reason}: nothing to compare."])
    try:
        base_label = labels[baseline_case(results, baseline)]
        comparisons = compare_methods(frame, results.metrics, methods, base_label)
    except UserError as error:
        return Statistics({}, [*warnings, f"Not compared: {error}"])
    verdicts: dict[str, list[str]] = {}
    for comparison in comparisons:
        verdicts.setdefault(comparison.method, []).append(comparison.verdict())
        warnings += [text for text in comparison.warnings() if text not in warnings]
    return Statistics(verdicts, [*warnings, TEST_NOTE])
