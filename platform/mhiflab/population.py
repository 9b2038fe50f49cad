"""Population based training: who is replaced, by whom, and with which values (Jaderberg, 2017).

All members start from the same weights and see the same batches. A member that takes over another's
weights, with other values, is therefore a training of its own whose values change on the way
(`train.changes`): it has a spec and a run key, and anyone can repeat it from the start.
"""

import math
from collections.abc import Sequence

from mhiflab.study.search import Search, Values
from mhiflab.suggestions import part

RESAMPLED = 0.25
"""The chance that a value is drawn anew instead of being varied."""
FACTORS = (0.8, 1.2)


def boundaries(search: Search, epochs: int) -> range:
    """Return the epochs after which a population is compared."""
    return range(search.scheduler.interval_epochs, epochs, search.scheduler.interval_epochs)


def successors(
    search: Search, epoch: int, values: Sequence[Values], scores: Sequence[float]
) -> list[tuple[int, Values] | None]:
    """Return for each member whose weights it takes over and with which values; None: it goes on.

    `scores` are higher where better, -inf for a training that failed. The same search, epoch and
    scores give the same answer on every machine.
    """
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    count = max(1, int(search.scheduler.replaced * len(order)))
    best, worst = order[:count], order[-count:]
    found: list[tuple[int, Values] | None] = [None] * len(order)
    for i in worst:
        donor = best[int(part(search.seed, epoch, i) * count)]
        if scores[donor] > -math.inf:
            found[i] = donor, explored(search, epoch, i, values[donor])
    return found


def explored(search: Search, epoch: int, member: int, values: Values) -> Values:
    """Return values near those of another member, some drawn anew; all inside their ranges."""
    found = {}
    for key, one in search.space.items():
        how, draw = (part(search.seed, epoch, member, key, what) for what in ("how", "draw"))
        new = how < RESAMPLED
        found[key] = one.at(draw) if new else one.rounded(values[key] * FACTORS[draw >= 0.5])
    return found
