"""Labels of all metrics that tables, sentences and figures show."""

from feinfn.metrics.evaluation import INDICES
from feinfn.metrics.no_reference import LABELS

METRICS = {name: index.label for name, index in INDICES.items()} | LABELS
