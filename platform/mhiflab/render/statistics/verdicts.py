"""Verdicts: compare every case of a study with its baseline."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from feinfn.errors import UserError, nearest
from mhiflab.render.metrics import METRICS
from mhiflab.render.runs import Results
from mhiflab.render.statistics.comparison import Comparison, compare_methods

HOW = (
    "Differences are tested over images (Wilcoxon) and over images and trainings together "
    "(Student's t); the larger p counts, after Holm within each metric. Intervals are bootstrapped "
    "over both."
)

DIGITS = 6
"""Significant digits of statistics in files: the last bits may differ between machines."""


def baseline_case(results: Results, baseline: str = "") -> str:
    """Return the case that others are compared with: the first, or the one that is named.

    Of a case with axes it is the first point. Raises `UserError` for a name that no case has.
    """
    cases = list(results.labels)
    fitting = [one for one in cases if not baseline or f"{one}/".startswith(f"{baseline}/")]
    if not fitting:
        raise UserError(
            f"baseline: found {baseline!r}, {nearest(baseline, cases)}expected a case: "
            + ", ".join(cases)
        )
    return fitting[0]


def compare_cases(results: Results, baseline: str = "") -> list[Comparison]:
    """Compare every case whose runs are complete with a baseline case, the first by default.

    Fewer than two complete cases give no comparison. Raises `UserError` for a baseline that is no
    case.
    """
    labels = results.labels
    lacking = {e.trial.case for e in results.entries if e.state != "done"}
    whole = [label for case, label in labels.items() if case not in lacking]
    first = labels[baseline_case(results, baseline)]
    if first not in whole or len(whole) < 2:
        return []
    return compare_methods(results.fused(), results.metrics, whole, first)


def sentences(found: Sequence[Comparison]) -> list[str]:
    """Return a verdict on the first metric of every case, what limits it, and how it is made."""
    if not found:
        return []
    first = [one for one in found if one.metric == found[0].metric]
    warnings = dict.fromkeys(text for one in found for text in one.warnings())
    return [one.verdict() for one in first] + [f"Warning: {text}" for text in warnings] + [HOW]


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def statistics(found: Sequence[Comparison]) -> pd.DataFrame:
    """Return every comparison as a row, numbers with `DIGITS` significant digits."""
    rows = []
    for one in found:
        row = asdict(one) | {"alpha": one.alpha, "shown": one.shown, "better": one.better}
        row |= {f"effect_{name}": value for name, value in row.pop("effect").items()}
        row["without"] = " ".join(one.without)
        # Of the images, zeros as halves.
        above, higher = row.pop("effect_superiority"), METRICS[one.metric].higher_is_better
        row["share_better"] = above if higher else 1 - above
        rows.append({name: _rounded(value) for name, value in row.items()})
    return pd.DataFrame(rows)
