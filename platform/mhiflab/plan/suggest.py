"""Suggestions of a search, and the best of its results.

A suggestion follows from the search, its index and the results on record alone: nothing is kept
between two of them, so a new driver goes on exactly where another one stopped.

Population based training (Jaderberg, 2017): all members start from the same weights and see the
same batches. A member that takes over another's weights, with other values, is therefore a training
of its own whose values change on the way (`train.changes`): it has a spec and a run key, and anyone
can repeat it from the start.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mhiflab.study.search import Range, Search, Values

POPULATION = 10
"""Suggestions of one generation of nsga2."""

RANDOM_START = 6
"""Suggestions that tpe draws at random before it models the results."""


def part(*words: object) -> float:
    """Return a number in [0, 1) that follows from some words, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


@dataclass(frozen=True)
class Told:
    """What is known of an earlier suggestion; `objectives` is None while it trains."""

    values: Values
    objectives: tuple[float, ...] | None
    failed: bool = False


def suggest(search: Search, index: int, earlier: Sequence[Told]) -> Values:
    """Return suggestion `index` >= 1; `earlier` is what the algorithm may learn from, in order."""
    if search.algorithm == "random":
        return {k: one.at(part(search.seed, index, k)) for k, one in search.space.items()}
    # Heavy, and not needed to plan.
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # From the index, because a sampler that always began with one seed would repeat its start.
    seed = int(part(search.seed, index) * 2**32)
    sampler: Any
    if search.algorithm == "tpe":
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=RANDOM_START, constant_liar=True
        )
    else:
        sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    modes = list(search.objectives.values())
    storage = optuna.storages.InMemoryStorage()
    directions = [{"max": "maximize", "min": "minimize"}[mode] for mode in modes]
    study = optuna.create_study(storage=storage, study_name="search", directions=directions)
    space = {key: _distribution(one) for key, one in search.space.items()}
    complete = 0
    for told in earlier:
        # A base outside the space is no point that the algorithm knows.
        if not all(one.holds(told.values[key]) for key, one in search.space.items()):
            continue
        state = "COMPLETE" if told.objectives else "FAIL" if told.failed else "RUNNING"
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState[state],
            values=told.objectives,
            params={k: _index(one, told.values[k]) for k, one in search.space.items()},
            distributions=space,
            system_attrs={"NSGAIISampler:generation": complete // POPULATION},
        )
        study.add_trial(trial)
        complete += told.objectives is not None
    names = list(search.objectives)
    optuna_search = OptunaSearch(
        space,
        metric=names[0] if search.single else names,
        mode=modes[0] if search.single else modes,
        sampler=sampler,
        storage=storage,
        study_name="search",
    )
    found = optuna_search.suggest("next")
    assert found is not None, "Optuna always has a suggestion"
    return {key: _value(one, found[key]) for key, one in search.space.items()}


def _distribution(one: Range) -> Any:
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if one.choice:
        # By position: Optuna takes no lists for categories.
        return CategoricalDistribution(range(len(one.choice)))
    low, high = one.ends
    if one.integer:
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=one.log_uniform is not None)


def _index(one: Range, value: Any) -> Any:
    return one.choice.index(value) if one.choice else value


def _value(one: Range, found: Any) -> Any:
    if one.choice:
        return one.choice[found]
    return found if one.integer else one.rounded(found)


def front(search: Search, points: Sequence[tuple[float, ...]]) -> list[int]:
    """Return the positions of the points that no other beats, best first objective first.

    With one objective that is the first of the best.
    """
    signs = [1 if mode == "max" else -1 for mode in search.objectives.values()]
    scores = [tuple(s * v for s, v in zip(signs, point, strict=True)) for point in points]

    def beaten(score: tuple[float, ...]) -> bool:
        return any(
            other != score and all(o >= s for o, s in zip(other, score, strict=True))
            for other in scores
        )

    best = [i for i, score in enumerate(scores) if not beaten(score) and scores.index(score) == i]
    return sorted(best, key=lambda i: scores[i], reverse=True)


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
