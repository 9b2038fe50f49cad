"""Comparisons of two methods on the same images, in numbers and in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

from feinfn.errors import UserError
from mhiflab.render.metrics import METRICS
from mhiflab.render.statistics.significance import (
    Effect,
    crossed_p,
    effect,
    holm,
    image_means,
    interval,
    permutation_p,
    smallest_p,
    wilcoxon_p,
)

FEW_IMAGES = 6
"""Number of images below which no two-sided test of sign flips reaches 0.05."""


@dataclass(frozen=True)
class Comparison:
    """One method against a baseline in one metric; differences are method less baseline."""

    metric: str
    method: str
    baseline: str
    images: int
    seeds: int
    """Number of seeds; 0 if neither method is trained."""
    effect: Effect
    low: float
    high: float
    """Interval of the mean difference (`significance.interval`), not widened for the family."""
    level: float
    p_wilcoxon: float
    p_permutation: float
    p_crossed: float
    """P value over images and seeds together (`significance.crossed_p`)."""
    p_holm: float
    """The larger of Wilcoxon's and the crossed p value, adjusted for the family."""
    family: int
    """Number of comparisons in the same metric."""
    without: tuple[str, ...] = ()
    """Images left out because one of the two methods has no finite value."""

    @property
    def alpha(self) -> float:
        """Accepted chance of a false claim in the whole family."""
        return round(1 - self.level, 12)

    @property
    def shown(self) -> bool:
        """True if test, interval, mean and ranks agree on a difference."""
        same_sign = self.effect.mean * self.effect.rank_biserial > 0
        beyond = self.low > 0 or self.high < 0
        return self.p_holm < self.alpha and beyond and same_sign

    @property
    def better(self) -> bool:
        """True if a difference was shown in the method's favour."""
        return self.shown and (self.effect.mean > 0) == METRICS[self.metric].higher_is_better

    def verdict(self) -> str:
        """Return the result as one sentence."""
        metric, mean = METRICS[self.metric], self.effect.mean

        # Show two significant digits of a difference, however small.
        tiny = 1 - math.floor(math.log10(abs(mean))) if self.shown else 0
        digits = max(metric.digits, tiny)

        def number(x: float) -> str:
            return f"{x:z.{digits}f}"

        count = f"n = {_counted(self.images, 'image')}"
        if self.seeds:
            count += f" x {_counted(self.seeds, 'seed')}"
        correction = f" after Holm over {self.family}" if self.family > 1 else ""
        test = f"p {_p_text(self.p_holm)}{correction}, {count}"
        percent = f"{100 * self.level:g}% interval"
        if not self.shown:
            interval_text = (
                ""
                if math.isnan(self.low)
                else (f", {percent} {number(self.low)} to {number(self.high)}")
            )
            return (
                f"No difference in {metric.name} between {self.method} and {self.baseline} was "
                f"shown (mean {number(mean)}{metric.words}{interval_text}, {test})"
                f"{self._why_not()}."
            )
        ends = sorted((abs(self.low), abs(self.high)))
        amount = f"{number(abs(mean))}{metric.words}"
        if metric.higher_is_better:
            claim = f"{'gains' if mean > 0 else 'loses'} {amount} {metric.name} "
            claim += f"{'over' if mean > 0 else 'to'} {self.baseline}"
        else:
            claim = f"{'raises' if mean > 0 else 'lowers'} {metric.name} by {amount}".rstrip()
            claim += f" against {self.baseline}, which is {'worse' if mean > 0 else 'better'}"
        interval_of_amount = f"{percent} {number(ends[0])} to {number(ends[1])}"
        return f"{self.method} {claim} ({interval_of_amount}, {test})."

    def _why_not(self) -> str:
        """Return the reason why nothing was shown if the p value in the sentence is not one."""
        if self.p_holm < self.alpha:
            return ": mean and ranks disagree, or the interval holds 0"
        if self.seeds > 1 and self.p_wilcoxon * self.family < self.alpha:
            return ": the images agree, the trainings do not"
        return ""

    def warnings(self) -> list[str]:
        """Return the limits that few images or seeds set, one sentence each."""
        sentences = []
        smallest = min(1.0, self.family * smallest_p(self.images))
        if smallest >= self.alpha:
            family = f" in a family of {self.family} comparisons" if self.family > 1 else ""
            sentences.append(
                f"{_counted(self.images, 'image')} cannot show a difference{family}: the smallest "
                f"p they can reach is {smallest:.2g}; evaluate more images."
            )
        if self.images < FEW_IMAGES:
            sentences.append(
                f"Fewer than {FEW_IMAGES} images: means and intervals depend on single images."
            )
        if self.without:
            sentences.append(
                f"{METRICS[self.metric].name}: without {', '.join(self.without)}, on which "
                f"{self.method} or {self.baseline} has no finite value."
            )
        if self.seeds == 2:
            sentences.append("Two seeds hardly tell how much trainings differ; run more.")
        if self.seeds == 1:
            sentences.append(
                "One seed: another training may differ from this one as much as two methods do; "
                "run more seeds."
            )
        return sentences


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'s' * (count != 1)}"


def _p_text(p: float) -> str:
    # More digits near 0.05, the usual limit of claims.
    digits = 4 if 0.0495 <= p < 0.0505 else 3 if p < 0.1 else 2
    return "< 0.001" if p < 0.001 else f"= {p:.{digits}f}"


def metric_table(frame: pd.DataFrame, metric: str, method: str) -> pd.DataFrame:
    """Return one method's metric with images as rows and seeds as columns, both sorted.

    `frame` has columns scene, seed, method and the metric. A method without seeds has the single
    column NaN. Raises `UserError` if a row is missing or repeated.
    """
    missing = {"scene", "seed", "method", metric} - set(frame.columns)
    if missing:
        raise UserError(
            f"metrics: columns {', '.join(sorted(missing))} are missing, found "
            + ", ".join(map(str, frame.columns))
        )
    rows = frame[frame["method"] == method]
    if rows.empty:
        known = ", ".join(sorted(frame["method"].astype(str).unique()))
        raise UserError(f"method: found {method!r}, expected one of {known}")
    repeated = rows.duplicated(["scene", "seed"])
    if repeated.any():
        row = rows[repeated].sort_values(["scene", "seed"]).iloc[0]
        raise UserError(
            f"metrics of {method}: scene {row['scene']!r} seed {row['seed']} is there more than "
            "once, expected one row; choose one convention and one run"
        )
    present = rows.pivot(index="scene", columns="seed", values="method").notna()
    if not present.to_numpy().all():
        i, k = np.argwhere(~present.to_numpy())[0]
        raise UserError(
            f"metrics of {method}: scene {present.index[i]!r} seed {present.columns[k]} is "
            "missing, expected all scenes for all seeds; run what is missing"
        )
    table = rows.pivot(index="scene", columns="seed", values=metric).sort_index().sort_index(axis=1)
    return table.astype(float)


def differences(
    frame: pd.DataFrame, metric: str, method: str, baseline: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return method less baseline [I, K], images and seeds sorted, and the images left out.

    Images without a finite value are left out, such as the ERGAS of a black band. A method without
    seeds is compared with every seed of the other; K = 1 for two such methods. Raises `UserError`
    if their images or seeds differ, or if no image has finite values.
    """
    a, b = metric_table(frame, metric, method), metric_table(frame, metric, baseline)
    for quantity, of_method, of_baseline in (
        ("scenes", a.index, b.index),
        ("seeds", a.columns, b.columns),
    ):
        if quantity == "seeds" and (of_method.isna().all() or of_baseline.isna().all()):
            continue
        unshared = of_method.symmetric_difference(of_baseline)
        if len(unshared):
            raise UserError(
                f"{method} and {baseline}: {quantity} {', '.join(map(str, unshared))} belong to "
                "one of them only, expected the same for both; run the missing ones"
            )
    finite = np.isfinite(a.to_numpy()).all(axis=1) & np.isfinite(b.to_numpy()).all(axis=1)
    if not finite.any():
        raise UserError(
            f"{method} and {baseline}: found no scene on which both have a finite {metric}, "
            "expected one; compare other metrics"
        )
    return (a.to_numpy() - b.to_numpy())[finite], tuple(map(str, a.index[~finite]))


def _seeded(frame: pd.DataFrame, methods: Sequence[str]) -> bool:
    return bool(frame.loc[frame["method"].isin(methods), "seed"].notna().any())


def compare_methods(
    frame: pd.DataFrame,
    metrics: Sequence[str],
    methods: Sequence[str],
    baseline: str | None = None,
    level: float = 0.95,
) -> list[Comparison]:
    """Compare methods with a baseline, or all pairs if there is none.

    All comparisons in one metric are one family under Holm's rule, because they answer one
    question; metrics are views of the same errors, and all are reported. The order of rows does not
    matter. Raises `UserError` if a method, metric or row is missing.
    """
    for metric in metrics:
        if metric not in METRICS:
            raise UserError(f"metric: found {metric!r}, expected one of {', '.join(METRICS)}")
    others = [m for m in methods if m != baseline]
    pairs = list(combinations(others, 2)) if baseline is None else [(m, baseline) for m in others]
    if not pairs:
        raise UserError(f"methods: found {', '.join(methods)}, expected two or more to compare")
    comparisons: list[Comparison] = []
    for metric in metrics:
        arrays = [differences(frame, metric, *pair) for pair in pairs]
        tests = [(wilcoxon_p(image_means(d_IK)), crossed_p(d_IK)) for d_IK, _ in arrays]
        # The crossed test needs two images, and adds nothing to Wilcoxon's for one training.
        several = [d_IK.shape[0] > 1 and d_IK.shape[1] > 1 for d_IK, _ in arrays]
        p = [
            max(p_values) if more else p_values[0]
            for p_values, more in zip(tests, several, strict=True)
        ]
        for pair, (d_IK, without), p_values, adjusted in zip(
            pairs, arrays, tests, holm(p), strict=True
        ):
            low, high = interval(d_IK, level)
            comparisons.append(
                Comparison(
                    metric,
                    *pair,
                    images=d_IK.shape[0],
                    seeds=d_IK.shape[1] if _seeded(frame, pair) else 0,
                    effect=effect(image_means(d_IK)),
                    low=low,
                    high=high,
                    level=level,
                    p_wilcoxon=p_values[0],
                    p_permutation=permutation_p(image_means(d_IK)),
                    p_crossed=p_values[1],
                    p_holm=adjusted,
                    family=len(pairs),
                    without=without,
                )
            )
    return comparisons
