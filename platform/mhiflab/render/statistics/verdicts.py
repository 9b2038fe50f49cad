"""Verdicts: compare every case of a study with its baseline, in sentences and as a table."""

from collections.abc import Sequence
from dataclasses import asdict

import pandas as pd

from feinfn.errors import UserError, nearest
from mhiflab.render.metrics import METRICS
from mhiflab.render.runs import Results
from mhiflab.render.statistics.comparison import Comparison, compare_methods

TEST_NOTE = (
    "Differences are tested over images (Wilcoxon) and over images and trainings together "
    "(Student's t); the larger p counts, after Holm within each metric. Intervals are bootstrapped "
    "over both."
)

DIGITS = 6
"""Significant digits of statistics in files: the last bits may differ between machines."""


def baseline_case(results: Results, baseline: str = "") -> str:
    """Return the case that others are compared with: the named one, or the first.

    A case with axes stands for its first point. Raises `UserError` if no case has the name.
    """
    cases = list(results.plan.labels)
    fitting = [one for one in cases if not baseline or f"{one}/".startswith(f"{baseline}/")]
    if not fitting:
        raise UserError(
            f"baseline: found {baseline!r}, {nearest(baseline, cases)}expected a case: "
            + ", ".join(cases)
        )
    return fitting[0]


def compare_cases(results: Results, baseline: str = "") -> list[Comparison]:
    """Compare every case whose runs are complete with a baseline case, by default the first.

    The list is empty for fewer than two complete cases. Raises `UserError` if the baseline is not a
    case.
    """
    incomplete = {e.trial.case for e in results.plan.entries if e.state != "done"}
    complete = [label for case, label in results.plan.labels.items() if case not in incomplete]
    base_label = results.plan.labels[baseline_case(results, baseline)]
    if base_label not in complete:
        return []
    return compare_methods(results.fused(), results.metrics, complete, base_label)


def sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a verdict per case on the first metric, warnings on its limits, and the test used."""
    if not comparisons:
        return []
    verdicts = [one.verdict() for one in comparisons if one.metric == comparisons[0].metric]
    warnings = dict.fromkeys(text for one in comparisons for text in one.warnings())
    return [*verdicts, *(f"Warning: {text}" for text in warnings), TEST_NOTE]


def statistics(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return one row per comparison, numbers with `DIGITS` significant digits."""
    rows = []
    for one in comparisons:
        row = asdict(one)
        del row["effect"]
        row |= {"alpha": one.alpha, "shown": one.shown, "better": one.better}
        row |= {"effect_mean": one.effect.mean, "effect_d_z": one.effect.d_z}
        row["effect_rank_biserial"] = one.effect.rank_biserial
        row["without"] = " ".join(one.without)
        # Share of the images; a difference of zero counts as half.
        superiority = one.effect.superiority
        higher = METRICS[one.metric].higher_is_better
        row["share_better"] = superiority if higher else 1 - superiority
        rows.append(
            {
                name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
                for name, value in row.items()
            }
        )
    return pd.DataFrame(rows)
