"""Labels of all metrics that tables, sentences and figures show."""

from collections.abc import Iterable

from feinfn.metrics.evaluation import INDICES
from feinfn.metrics.no_reference import LABELS

METRICS = {name: index.label for name, index in INDICES.items()} | LABELS


def headings(metrics: Iterable[str]) -> list[str]:
    """Return the headings of columns of metrics, with arrows that point at better values."""
    labels = [METRICS[metric] for metric in metrics]
    return [f"{label.heading} {'↑' if label.higher_is_better else '↓'}" for label in labels]
