"""Verdicts: compare every case of a study with its baseline, in sentences and as a table."""

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import pandas as pd

from feinfn.errors import UserError, require_one_of
from feinfn.metrics.label import LABELS
from mhiflab.record.artifacts import UPSAMPLED
from mhiflab.render.runs import Results
from mhiflab.render.statistics.comparison import Comparison, compare_methods

TEST_NOTE = (
    "Differences are tested over images (Wilcoxon) and over images and trainings together "
    "(Student's t); the larger p counts, after Holm within each metric. Intervals are bootstrapped "
    "over both."
)

DIGITS = 6
"""Significant digits of statistics in files: the last bits may differ between machines."""


def baseline_label(results: Results) -> str:
    """Return the label of the case that others are compared with: the study's choice, or the first.

    A case with axes stands for its first point. Raises `UserError` if no case has the name.
    """
    baseline, labels = results.plan.study.baseline, results.plan.labels
    fitting = [case for case in labels if not baseline or f"{case}/".startswith(f"{baseline}/")]
    if not fitting:
        require_one_of("baseline", str(baseline), labels, "a case: ")
    return labels[fitting[0]]


def complete_cases(results: Results) -> list[str]:
    """Return the cases all of whose runs are finished, in the study's order."""
    incomplete = {e.trial.case for e in results.plan.entries if e.state != "done"}
    return [case for case in results.plan.labels if case not in incomplete]


def compare_cases(results: Results) -> tuple[list[Comparison], str]:
    """Compare every case whose runs are complete with the baseline.

    Returns also the reason if several cases are not compared. Raises `UserError` if the baseline is
    not a case.
    """
    complete = [results.plan.labels[case] for case in complete_cases(results)]
    base = baseline_label(results)
    if len(results.plan.labels) < 2:
        return [], ""
    if base not in complete:
        return [], f"the baseline, {base}, lacks runs"
    if complete == [base]:
        return [], f"no case but the baseline, {base}, is complete"
    images = results.fused()
    try:
        return compare_methods(images, results.metrics, complete, base), ""
    except UserError as error:
        if np.isfinite(images[results.metrics]).all(axis=None):
            raise
        return [], str(error)


def sentences(comparisons: Sequence[Comparison]) -> list[str]:
    """Return a verdict per case on the first metric, warnings on its limits, and the test used."""
    if not comparisons:
        return []
    verdicts = [one.verdict() for one in comparisons if one.metric == comparisons[0].metric]
    warnings = dict.fromkeys(text for one in comparisons for text in one.warnings())
    return [*verdicts, *(f"Warning: {text}" for text in warnings), TEST_NOTE]


def progress(results: Results) -> list[str]:
    """Return a sentence per case that states its start: how far it came on the first metric.

    Cases with axes are left out, and those of which runs are missing or numbers are not finite.
    """
    metric = results.metrics[0]
    label, labels = LABELS[metric], results.plan.labels | {UPSAMPLED: results.plan.upsampled_label}
    images = results.fused()
    frames = dict(list(images.groupby("method")))
    frames[labels[UPSAMPLED]] = results.upsampled()
    known, lines = {*complete_cases(results), UPSAMPLED}, []
    for name, case in results.plan.study.cases.items():
        if case.start is None or not {name, case.start} <= known:
            continue
        start = frames[labels[case.start]].groupby("scene")[metric].mean()
        rows = frames[labels[name]]
        gains = rows[metric].to_numpy() - start.loc[rows["scene"]].to_numpy()
        if not np.isfinite(gains).all():
            continue
        if not label.higher_is_better:
            gains = -gains
        gain = gains.mean()
        far = f"{abs(gain):.{label.digits}f}{label.words} {'above' if gain > 0 else 'below'}"
        lines.append(
            f"{labels[name]} ends {far if gain else 'at'} its start, {labels[case.start]}, in "
            f"{label.name}; it is better in {(gains > 0).sum()} of {len(gains)} images x seeds."
        )
    return lines


def statistics(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Return one row per comparison, numbers with `DIGITS` significant digits."""
    rows = []
    for one in comparisons:
        row = asdict(one) | {"without": " ".join(one.without)}
        effect = row.pop("effect")
        row |= {"alpha": one.alpha, "shown": one.shown, "better": one.better}
        # Share of the images; a difference of zero counts as half.
        superiority = effect.pop("superiority")
        row |= {f"effect_{name}": value for name, value in effect.items()}
        higher = LABELS[one.metric].higher_is_better
        row["share_better"] = superiority if higher else 1 - superiority
        rows.append(
            {
                name: float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value
                for name, value in row.items()
            }
        )
    return pd.DataFrame(rows)
