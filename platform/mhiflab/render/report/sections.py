"""Statistics and images of a report."""

import math
from dataclasses import replace

import pandas as pd

from feinfn.errors import UserError
from mhiflab.grid import Cell, Grid, texts
from mhiflab.plan.plan import Plan
from mhiflab.render.metrics import METRICS, headings
from mhiflab.render.runs import Results
from mhiflab.render.statistics.comparison import compare_methods
from mhiflab.render.statistics.verdicts import TEST_NOTE, baseline_label

IMAGE_ROWS = 5000
"""Most rows of a page's table of images."""


def with_distinct_labels(plan: Plan) -> Plan:
    """Return the plan with a distinct label for every case."""
    entries = [
        replace(e, trial=replace(e.trial, label=plan.labels[e.trial.case])) for e in plan.entries
    ]
    return replace(plan, entries=tuple(entries))


def image_grid(results: Results, share: float) -> Grid | None:
    """Return the metrics of every image, method and seed, or None beyond a share of `IMAGE_ROWS`.

    The upsampled LR-HSI stands once per image.
    """
    upsampled = results.upsampled().assign(method=results.plan.upsampled_label, seed=math.nan)
    frame = pd.concat([upsampled, results.fused()])
    lines = []
    for _, row in frame.iterrows():
        seed = -1 if pd.isna(row["seed"]) else int(row["seed"])
        line = texts(str(row["scene"]), str(row["method"]))
        line.append(Cell("–" if seed < 0 else str(seed), value=seed))
        line += [Cell(f"{row[m]:.{METRICS[m].digits}f}", value=row[m]) for m in results.metrics]
        lines.append(line)
    head = ["Image", "Method", "Seed", *headings(results.metrics)]
    return Grid(head, lines, names=2) if len(lines) <= share * IMAGE_ROWS else None


def statistics(results: Results) -> tuple[dict[str, list[str]], list[str]]:
    """Compare every case with the baseline on seeds that all cases have.

    Returns verdicts by method, and warnings on their limits.
    """
    fused = results.fused()
    # A method without training is compared with every seed.
    by_case = [set(rows["seed"]) for _, rows in fused.dropna(subset="seed").groupby("case")]
    shared = set.intersection(*by_case) if by_case else set()
    warnings = []
    if unshared := sorted(int(seed) for seed in set().union(*by_case) - shared):
        numbers = ", ".join(map(str, unshared))
        warnings.append(f"Seeds {numbers} are left out: not every case has a finished run of them.")
    labels = results.plan.labels
    if len(labels) < 2 or (by_case and not shared):
        reason = "one case with finished runs" if len(labels) < 2 else "no seed that all cases have"
        return {}, [*warnings, f"There is {reason}: nothing to compare."]
    frame = fused[fused["seed"].isin(shared) | fused["seed"].isna()]
    try:
        base_label = baseline_label(results)
        comparisons = compare_methods(frame, results.metrics, list(labels.values()), base_label)
    except UserError as error:
        return {}, [*warnings, f"Not compared: {error}"]
    verdicts: dict[str, list[str]] = {}
    for comparison in comparisons:
        verdicts.setdefault(comparison.method, []).append(comparison.verdict())
        warnings += [text for text in comparison.warnings() if text not in warnings]
    return verdicts, [*warnings, TEST_NOTE]
