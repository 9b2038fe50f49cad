"""What a report says of states, results and statistics, as plain values for its template."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from feinfn.errors import UserError
from mhiflab.comparison import compare_methods
from mhiflab.estimate import clock
from mhiflab.plan import Entry, Plan
from mhiflab.scores import FUSED
from mhiflab.tables import BEST_IS_HIGH, DIGITS, NAMES, Results, summary, upsampled_label


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


def told_apart(plan: Plan) -> Plan:
    """Return the plan with a label of its own for every case."""
    labels = {e.trial.case: e.trial.label for e in plan.entries}
    twice = {label for label in labels.values() if list(labels.values()).count(label) > 1}
    entries = [
        replace(e, trial=replace(e.trial, label=f"{e.trial.label} ({e.trial.case})"))
        if e.trial.label in twice
        else e
        for e in plan.entries
    ]
    return replace(plan, entries=tuple(entries))


def finished(plan: Plan) -> Plan:
    """Return the plan with nothing but its finished trials."""
    return replace(plan, entries=tuple(e for e in plan.entries if e.state == "done"))


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
    """Return the study's table: means, standard deviations over seeds, the best marked."""
    table, metrics = summary(results), results.metrics
    best = {
        m: table[f"{m}_mean"].max() if BEST_IS_HIGH[m] else table[f"{m}_mean"].min()
        for m in metrics
    }
    rows = []
    for _, row in table.iterrows():
        cells = [Cell(str(row["method"])), Cell(f"{row['seeds']} of {len(plan.study.seeds)}")]
        if not row["seeds"]:
            cells[1] = Cell("–")
        for m in metrics:
            mean, std = row[f"{m}_mean"], row[f"{m}_std"]
            # A blank keeps the means below each other.
            blank = "\u00a0" if table[f"{m}_std"].notna().any() else ""
            below = blank if pd.isna(std) else f"± {std:.{DIGITS[m]}f}"
            mark = "best" if mean == best[m] else ""
            cells.append(Cell(f"{mean:.{DIGITS[m]}f}", mark, below))
        rows.append(cells)
    return Grid(["Method", "Seeds", *_heads(metrics)], rows)


def image_grid(results: Results) -> Grid:
    """Return the metrics of every image, method and seed; the upsampled LR-HSI once an image."""
    images = results.images
    fused = images["method"] == FUSED
    upsampled = images[~fused].drop_duplicates("scene")
    upsampled = upsampled.assign(label=upsampled_label(results), seed=-1)
    named = images[fused].assign(label=images["case"].map(results.labels))
    rows = []
    for _, row in pd.concat([upsampled, named]).iterrows():
        seed = "–" if row["seed"] < 0 else str(row["seed"])
        cells = [Cell(str(row["scene"])), Cell(str(row["label"])), Cell(seed, value=row["seed"])]
        cells += [Cell(f"{row[m]:.{DIGITS[m]}f}", value=row[m]) for m in results.metrics]
        rows.append(cells)
    return Grid(["Image", "Method", "Seed", *_heads(results.metrics)], rows, names=2)


def _heads(metrics: list[str]) -> list[str]:
    return [f"{NAMES[m]} {'↑' if BEST_IS_HIGH[m] else '↓'}" for m in metrics]


def statistics(results: Results) -> Statistics:
    """Compare every case with the first one that has runs, on the seeds that all of them have."""
    fused = results.images[results.images["method"] == FUSED]
    by_case = [set(fused[fused["case"] == case]["seed"]) for case in results.labels]
    shared = set.intersection(*by_case)
    warnings = []
    if left := sorted(set.union(*by_case) - shared):
        told = ", ".join(map(str, left))
        warnings.append(f"Seeds {told} are left out: not every case has a finished run of them.")
    frame = fused[fused["seed"].isin(shared)]
    frame = frame.assign(method=frame["case"].map(results.labels))
    methods = list(results.labels.values())
    if len(methods) < 2 or not shared:
        what = "one case with finished runs" if len(methods) < 2 else "no seed that all cases have"
        return Statistics({}, [*warnings, f"There is {what}: nothing to compare."])
    try:
        found = compare_methods(frame, results.metrics, methods, methods[0])
    except UserError as error:
        return Statistics({}, [*warnings, f"Not compared: {error}"])
    verdicts: dict[str, list[str]] = {}
    for one in found:
        verdicts.setdefault(one.method, []).append(one.verdict())
        warnings += [text for text in one.warnings() if text not in warnings]
    return Statistics(verdicts, warnings)
