"""What a search may say: its space, its objectives, and what it suggests next.

A suggestion follows from the search, its index and the results on record alone: nothing is kept
between two of them, so a new driver goes on exactly where another one stopped.
"""

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from itertools import islice, product
from typing import Any, ClassVar, Literal

from feinfn.config import STRICT, ModelConfig, TrainConfig, require
from feinfn.errors import UserError
from feinfn.metrics import METRICS

Values = dict[str, Any]
"""Searched keys and their values."""
COSTS = ("parameters", "train_seconds", "flops")
"""Objectives beside validation metrics; flops are those per HR pixel of one forward pass."""
OBJECTIVES = (*(f"val_{name}" for name in METRICS), *COSTS)
POPULATION = 10
"""Suggestions of one generation of nsga2."""
RANDOM_START = 6
"""Suggestions that tpe draws at random before it models the results."""
MOST_CORNERS = 256


@dataclass(frozen=True, kw_only=True)
class Range:
    """The values one key may take; exactly one field is given."""

    __pydantic_config__: ClassVar[dict] = STRICT

    uniform: tuple[float, float] | None = None
    """Any number between two bounds."""
    log_uniform: tuple[float, float] | None = None
    """Any number between two bounds > 0, every factor equally likely."""
    integer: tuple[int, int] | None = None
    """An integer between two bounds, both included."""
    choice: tuple[Any, ...] | None = None
    """One of some values."""

    def check(self, where: str) -> None:
        """Raise `UserError` for a range that is empty or not a range."""
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        given = {name: value for name, value in given.items() if value is not None}
        require(
            len(given) == 1, where, ", ".join(given) or "nothing", "one of " + ", ".join(_KINDS)
        )
        if self.choice is not None:
            texts = [json.dumps(value) for value in self.choice]
            require(
                len(texts) > 1 and len(set(texts)) == len(texts),
                f"{where}.choice",
                list(self.choice),
                "two or more distinct values",
            )
            return
        (kind, (low, high)), *_ = given.items()
        good = math.isfinite(low) and math.isfinite(high) and low < high
        require(good, f"{where}.{kind}", [low, high], "two finite numbers, the lower one first")
        if kind == "log_uniform":
            require(low > 0, f"{where}.{kind}", [low, high], "bounds > 0, which have logarithms")

    @property
    def ends(self) -> tuple[Any, ...]:
        """The bounds, or every choice."""
        return self.choice or self.uniform or self.log_uniform or self.integer or ()

    def at(self, part: float) -> Any:
        """Return the value at a part of the range, in [0, 1)."""
        if self.choice:
            return self.choice[int(part * len(self.choice))]
        low, high = self.ends
        if self.integer:
            return low + int(part * (high - low + 1))
        if self.log_uniform:
            return self.rounded(low * (high / low) ** part)
        return self.rounded(low + (high - low) * part)

    def rounded(self, value: float) -> float:
        """Return a float with 6 significant digits inside the bounds: run keys must be stable."""
        low, high = self.ends
        return min(max(float(f"{value:.6g}"), low), high)

    def holds(self, value: Any) -> bool:
        """Return whether a value could be suggested."""
        if self.choice:
            return value in self.choice
        low, high = self.ends
        return isinstance(value, int | float) and low <= value <= high


_KINDS = [f.name for f in fields(Range)]


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """What stops trials early that fall behind."""

    __pydantic_config__: ClassVar[dict] = STRICT

    name: Literal["none", "asha", "median", "pbt"] = "none"
    """asha: successive halving; median: behind the median of the others."""
    grace_epochs: int = 2
    """Epochs that every trial is given."""
    reduction: float = 3
    """asha lets one in so many trials pass each rung."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """What a study searches for: values of some keys that are best on the validation scenes."""

    __pydantic_config__: ClassVar[dict] = STRICT

    space: dict[str, Range]
    """Dotted keys of model and train, and the values they may take."""
    objectives: dict[str, Literal["max", "min"]]
    """One or two of the validation metrics and costs, at least one metric."""
    algorithm: Literal["random", "tpe", "nsga2"] = "tpe"
    """random: a list fixed by the seed; tpe, nsga2: Optuna's, from the results so far."""
    trials: int = 20
    """Suggestions in all; the first is the base itself."""
    seed: int = 1
    """Seed of the suggestions; trainings have the study's."""
    scheduler: Scheduler = field(default_factory=Scheduler)

    def __post_init__(self) -> None:
        require(len(self.space) > 0, "search.space", self.space, "at least one key")
        for key, one in self.space.items():
            check_key(key)
            one.check(f"search.space.{key}")
        names = list(self.objectives)
        for name in names:
            _check_objective(name)
        measured = any(name not in COSTS for name in names)
        require(
            len(names) in (1, 2) and measured,
            "search.objectives",
            names,
            "one or two, at least one of them a validation metric such as val_psnr",
        )
        require(self.trials >= 2, "search.trials", self.trials, "an integer >= 2 (the base is one)")
        self._check_scheduler()

    def _check_scheduler(self) -> None:
        name, scheduler = self.scheduler.name, self.scheduler
        require(
            name != "pbt",
            "search.scheduler.name",
            name,
            "none, asha or median: a population's values change while it trains, so that no run "
            "key says what was trained, and a search that was stopped could not be continued",
        )
        if name == "none":
            return
        require(
            len(self.objectives) == 1,
            "search.scheduler.name",
            name,
            "none with two objectives: a trial that is stopped has no cost to compare",
        )
        where = "search.scheduler"
        require(
            scheduler.grace_epochs >= 1, f"{where}.grace_epochs", scheduler.grace_epochs, ">= 1"
        )
        require(scheduler.reduction > 1, f"{where}.reduction", scheduler.reduction, "a number > 1")

    @property
    def single(self) -> bool:
        """Whether there is one best suggestion rather than a front of them."""
        return len(self.objectives) == 1

    def identity(self, base_key: str) -> str:
        """Return the hash of the search over one base; raising `trials` does not change it."""
        content = {k: v for k, v in asdict(self).items() if k != "trials"}
        text = json.dumps([base_key, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def corners(self) -> Iterator[Values]:
        """Yield the corners of the space, at most 256 of them."""
        ends = product(*(one.ends for one in self.space.values()))
        for values in islice(ends, MOST_CORNERS):
            yield dict(zip(self.space, values, strict=True))


def check_key(key: str) -> None:
    """Raise `UserError` unless a dotted key may be searched, naming the nearest that may."""
    sections = {"model": ModelConfig, "train": TrainConfig}
    valid = [f"{name}.{f.name}" for name, kind in sections.items() for f in fields(kind)]
    if key not in valid:
        close = get_close_matches(key, valid, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise UserError(
            f"search.space: found {key!r}, {hint}expected a key of model or train: "
            + ", ".join(valid)
        )


def _check_objective(name: str) -> None:
    if name not in OBJECTIVES:
        close = get_close_matches(name.replace("test_", "val_"), OBJECTIVES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        why = " (test scenes choose nothing)" if name.startswith("test") else ""
        raise UserError(
            f"search.objectives: found {name!r}, {hint}expected one of {', '.join(OBJECTIVES)}{why}"
        )


def _part(*words: object) -> float:
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
        return {k: one.at(_part(search.seed, index, k)) for k, one in search.space.items()}
    # Heavy, and not needed to plan.
    import optuna
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # From the index, because a sampler that always began with one seed would repeat its start.
    seed = int(_part(search.seed, index) * 2**32)
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
