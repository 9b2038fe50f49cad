"""Comparisons of two methods on the same images, in numbers and in words."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from feinfn.errors import UserError
from feinfn.metrics.label import LABELS
from mhiflab.render.statistics import significance

FEW_IMAGES = 6
"""Number of images below which no two-sided test of sign flips reaches 0.05."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One method against a baseline in one metric; differences are method less baseline."""

    metric: str
    method: str
    baseline: str
    images: int
    seeds: int
    """Number of seeds; 0 if neither method is trained."""
    effect: significance.Effect
    low: float
    high: float
    """Interval of the mean difference (`significance.interval`), not widened for the family."""
    level: float = significance.LEVEL
    p_wilcoxon: float
    p_permutation: float
    p_crossed: float
    """P value over images and seeds together (`significance.crossed_p`)."""
    p_holm: float
    """The larger of Wilcoxon's and the crossed p value, adjusted for the family."""
    family: int = 1
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
        return self.shown and (self.effect.mean > 0) == LABELS[self.metric].higher_is_better

    def verdict(self) -> str:
        """Return the result as one sentence."""
        metric, mean = LABELS[self.metric], self.effect.mean
        # Show two significant digits of a difference, however small.
        tiny = 1 - math.floor(math.log10(abs(mean))) if self.shown else 0
        form = f"z.{max(metric.digits, tiny)}f"
        count = f"n = {_counted(self.images, 'image')}"
        if self.seeds:
            count += f" x {_counted(self.seeds, 'seed')}"
        correction = f" after Holm over {self.family}" if self.family > 1 else ""
        test = f"p {_p_text(self.p_holm)}{correction}, {count}"
        ends = [self.low, self.high]
        if self.shown:
            ends = sorted(map(abs, ends))
        interval_text = f"{100 * self.level:g}% interval {ends[0]:{form}} to {ends[1]:{form}}, "
        if math.isnan(self.low):
            interval_text = ""
        if not self.shown:
            return (
                f"No difference in {metric.name} between {self.method} and {self.baseline} was "
                f"shown (mean {mean:{form}}{metric.words}, {interval_text}{test}){self._why_not()}."
            )
        amount = f"{abs(mean):{form}}{metric.words}"
        if metric.higher_is_better:
            gains, over = ("gains", "over") if mean > 0 else ("loses", "to")
            claim = f"{gains} {amount} {metric.name} {over} {self.baseline}"
        else:
            raises, worse = ("raises", "worse") if mean > 0 else ("lowers", "better")
            claim = f"{raises} {metric.name} by {amount}".rstrip()
            claim += f" against {self.baseline}, which is {worse}"
        return f"{self.method} {claim} ({interval_text}{test})."

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
        smallest = min(1.0, self.family * significance.smallest_p(self.images))
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
                f"{LABELS[self.metric].name}: without {', '.join(self.without)}, on which "
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
    rows = frame[frame["method"] == method]
    counts = rows.groupby(["scene", "seed"], dropna=False).size().unstack(fill_value=0)
    for i, k in np.argwhere(counts.to_numpy() != 1):
        raise UserError(
            f"metrics of {method}: scene {counts.index[i]!r} seed {counts.columns[k]}: found "
            f"{counts.iloc[i, k]} rows, expected one for all scenes and seeds; run what is missing"
        )
    table = rows.pivot(index="scene", columns="seed", values=metric)
    return table.sort_index().sort_index(axis=1).astype(float)


def compare_two(frame: pd.DataFrame, metric: str, method: str, baseline: str) -> Comparison:
    """Compare a method with a baseline in one metric, as a family of one.

    Images without a finite value are left out, such as the ERGAS of a black band. A method without
    seeds is compared with every seed of the other. Raises `UserError` if their images or seeds
    differ, or if no image has finite values.
    """
    a, b = metric_table(frame, metric, method), metric_table(frame, metric, baseline)
    unshared = {"scenes": a.index.symmetric_difference(b.index)}
    if a.columns.notna().all() and b.columns.notna().all():
        unshared["seeds"] = a.columns.symmetric_difference(b.columns)
    for quantity, names in unshared.items():
        if len(names):
            raise UserError(
                f"{method} and {baseline}: {quantity} {', '.join(map(str, names))} belong to one "
                "of them only, expected the same for both; run the missing ones"
            )
    difference = a.to_numpy() - b.to_numpy()
    finite = np.isfinite(a.to_numpy()).all(axis=1) & np.isfinite(b.to_numpy()).all(axis=1)
    if not finite.any():
        raise UserError(
            f"{method} and {baseline}: found no scene on which both have a finite {metric}, "
            "expected one; compare other metrics"
        )
    d_IK = difference[finite]
    d_I, (low, high) = significance.image_means(d_IK), significance.interval(d_IK)
    p_wilcoxon, p_crossed = significance.wilcoxon_p(d_I), significance.crossed_p(d_IK)
    # The crossed test needs two images, and adds nothing to Wilcoxon's for one training.
    crossed = min(d_IK.shape) > 1
    return Comparison(
        metric=metric,
        method=method,
        baseline=baseline,
        images=len(d_I),
        seeds=max(a.columns.nunique(), b.columns.nunique()),
        effect=significance.effect(d_I),
        low=low,
        high=high,
        p_wilcoxon=p_wilcoxon,
        p_permutation=significance.permutation_p(d_I),
        p_crossed=p_crossed,
        p_holm=max(p_wilcoxon, p_crossed) if crossed else p_wilcoxon,
        without=tuple(map(str, a.index[~finite])),
    )


def compare_methods(
    frame: pd.DataFrame, metrics: Sequence[str], methods: Sequence[str], baseline: str
) -> list[Comparison]:
    """Compare methods with a baseline.

    All comparisons in one metric are one family under Holm's rule, because they answer one
    question; metrics are views of the same errors, and all are reported. The order of rows does not
    matter. Raises `UserError` as `compare_two` does.
    """
    others = [method for method in methods if method != baseline]
    comparisons: list[Comparison] = []
    for metric in metrics:
        family = [compare_two(frame, metric, method, baseline) for method in others]
        adjusted = significance.holm([one.p_holm for one in family])
        comparisons += [
            replace(one, p_holm=p, family=len(family))
            for one, p in zip(family, adjusted, strict=True)
        ]
    return comparisons
