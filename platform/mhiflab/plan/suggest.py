"""Suggestions of a search, the best of its results, and the successors in a population.

A suggestion follows from the search, its index and the results on record alone. No state is kept
between suggestions, so a new driver continues exactly where another one stopped.

In population based training (Jaderberg, 2017) all members start from the same weights and see the
same batches. A member that takes over another's weights with new values is therefore a training
whose values change at some epoch (`train.changes`). It has a spec and a run key, and anyone can
repeat it from the start.
"""

import hashlib
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mhiflab.study.expand import Trial
from mhiflab.study.search import Range, Search, Values

POPULATION = 10
"""Number of suggestions in a generation of nsga2."""

RANDOM_START = 6
"""Number of suggestions that tpe draws at random before it models the results."""


@dataclass(frozen=True)
class Suggestion:
    """One suggestion, with its result on record."""

    index: int
    steps: tuple[tuple[int, Values], ...]
    """Its values, each with the epoch after which they hold: first 0; more only in a population."""
    trial: Trial
    key: str
    state: str = "new"
    """Finished: done, stopped (by the scheduler), failed (diverged). Unfinished: resume, new."""
    epochs: int = 0
    """Epochs that it has trained."""
    objectives: tuple[float, ...] | None = None
    """Objectives at the epoch whose weights are kept, the one of the best validation PSNR."""

    @property
    def values(self) -> Values:
        """Its values at the end."""
        return self.steps[-1][1]

    @property
    def since(self) -> int:
        """Epoch after which `values` hold."""
        return self.steps[-1][0]

    @property
    def text(self) -> str:
        """Text of its values for labels."""
        return "; ".join(
            f"after {epoch}: {text_of(values)}" if epoch else text_of(values)
            for epoch, values in self.steps
        )

    @property
    def finished(self) -> bool:
        """True if its result is known."""
        return self.state in ("done", "stopped", "failed")


def text_of(values: Values) -> str:
    """Return searched values as a text for labels."""
    names = {key.rpartition(".")[2]: value for key, value in values.items()}
    return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in names.items())


def hashed_fraction(*words: object) -> float:
    """Return a number in [0, 1) from the hash of some words, the same on every machine."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def suggest(search: Search, index: int, earlier: Sequence[Suggestion]) -> Values:
    """Return the values of suggestion `index` >= 1.

    The algorithm learns from `earlier`, whose order matters.
    """
    if search.algorithm == "random":
        return {
            key: values.at(hashed_fraction(search.seed, index, key))
            for key, values in search.space.items()
        }
    # Imported late: heavy, and not needed to plan.
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # The seed depends on the index: with one seed, the sampler would repeat its start.
    seed = int(hashed_fraction(search.seed, index) * 2**32)
    sampler: Any
    if search.algorithm == "tpe":
        sampler = optuna.samplers.TPESampler(
            seed=seed, n_startup_trials=RANDOM_START, constant_liar=True
        )
    else:
        sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
    directions = [f"{mode}imize" for mode in search.objectives.values()]
    study = optuna.create_study(sampler=sampler, directions=directions)
    space = {key: _distribution(one) for key, one in search.space.items()}
    complete = 0
    for past in earlier:
        # A base outside the space is no valid point for the algorithm.
        if not all(one.holds(past.values[key]) for key, one in search.space.items()):
            continue
        state = "COMPLETE" if past.objectives else "FAIL" if past.state == "failed" else "RUNNING"
        trial = optuna.trial.create_trial(
            state=optuna.trial.TrialState[state],
            values=past.objectives,
            params={
                key: one.choice.index(past.values[key]) if one.choice else past.values[key]
                for key, one in search.space.items()
            },
            distributions=space,
            system_attrs={"NSGAIISampler:generation": complete // POPULATION},
        )
        study.add_trial(trial)
        complete += past.objectives is not None
    params = study.ask(space).params
    return {key: _value(one, params[key]) for key, one in search.space.items()}


def _distribution(values: Range) -> Any:
    """Return Optuna's distribution for a range; for choices, one of their positions."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    if values.choice:
        # Optuna takes no lists as categories.
        return CategoricalDistribution(range(len(values.choice)))
    low, high = values.ends
    if values.integer:
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=values.log_uniform is not None)


def _value(values: Range, param: Any) -> Any:
    """Return the value for Optuna's parameter."""
    if values.choice:
        return values.choice[param]
    return param if values.integer else values.rounded(param)


def pareto_front(search: Search, points: Sequence[tuple[float, ...]]) -> list[int]:
    """Return the positions of the points that no other beats, sorted by the first objective.

    The best comes first. With one objective, return the first of the best points alone.
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
"""Probability that a value is drawn again instead of being scaled."""

FACTORS = (0.8, 1.2)
"""Factors that scale a value."""


def comparison_epochs(search: Search, epochs: int) -> range:
    """Return the epochs after which a population is compared; none in other searches."""
    if not search.population:
        return range(0)
    return range(search.scheduler.interval_epochs, epochs, search.scheduler.interval_epochs)


def successors(
    search: Search, epoch: int, values: Sequence[Values], scores: Sequence[float]
) -> list[tuple[int, Values] | None]:
    """Return for each member the donor of its new weights and its new values, or None to continue.

    Higher `scores` are better; a failed training has -inf. The same search, epoch and scores give
    the same result on every machine.
    """
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    count = max(1, int(search.scheduler.replaced * len(order)))
    best, worst = order[:count], order[-count:]
    moves: list[tuple[int, Values] | None] = [None] * len(order)
    for i in worst:
        donor = best[int(hashed_fraction(search.seed, epoch, i) * count)]
        if scores[donor] > -math.inf:
            moves[i] = donor, _perturbed(search, epoch, i, values[donor])
    return moves


def _perturbed(search: Search, epoch: int, member: int, values: Values) -> Values:
    """Return values near a donor's, some of them drawn again, all inside their ranges."""
    perturbed = {}
    for key, one in search.space.items():
        how, draw = (hashed_fraction(search.seed, epoch, member, key, w) for w in ("how", "draw"))
        scaled = values[key] * FACTORS[draw >= 0.5]
        perturbed[key] = one.at(draw) if how < RESAMPLED else one.rounded(scaled)
    return perturbed
