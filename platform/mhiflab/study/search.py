"""What a search may say: its space, its objectives, its algorithm and scheduler."""

import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from itertools import islice, product
from typing import Any, ClassVar, Literal

from feinfn.config import CHANGEABLE, STRICT, ModelConfig, TrainConfig, require
from feinfn.errors import UserError, nearest
from feinfn.metrics.evaluation import METRICS

Values = dict[str, Any]
"""Searched keys and their values."""

COSTS = ("parameters", "train_seconds", "flops")
"""Objectives beside validation metrics; flops are those per HR pixel of one forward pass."""

OBJECTIVES = (*(f"val_{name}" for name in METRICS), *COSTS)

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
    """asha: successive halving; median: behind the median of the others; pbt: population based
    training, where the worst take over the best ones' weights with other values."""
    grace_epochs: int = 2
    """Epochs that every trial is given."""
    reduction: float = 3
    """asha lets one in so many trials pass each rung."""
    interval_epochs: int = 2
    """pbt: epochs between two comparisons of the population."""
    replaced: float = 0.25
    """pbt: the share of the population that is replaced at each."""


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
        if name == "none":
            return
        require(
            len(self.objectives) == 1,
            "search.scheduler.name",
            name,
            "none with two objectives: a trial that is stopped has no cost to compare",
        )
        where = "search.scheduler"
        if name == "pbt":
            self._check_population(where)
            return
        require(
            scheduler.grace_epochs >= 1, f"{where}.grace_epochs", scheduler.grace_epochs, ">= 1"
        )
        require(scheduler.reduction > 1, f"{where}.reduction", scheduler.reduction, "a number > 1")

    def _check_population(self, where: str) -> None:
        scheduler = self.scheduler
        require(
            self.algorithm == "random",
            "search.algorithm",
            self.algorithm,
            "random with pbt, which varies what the first members were drawn with",
        )
        for key, one in self.space.items():
            section, _, name = key.partition(".")
            require(
                section == "train" and name in CHANGEABLE and bool(one.uniform or one.log_uniform),
                "search.space",
                key,
                "a uniform or log_uniform range of what may change while a network trains, with "
                "pbt: " + ", ".join(f"train.{name}" for name in CHANGEABLE),
            )
        require(
            scheduler.interval_epochs >= 1,
            f"{where}.interval_epochs",
            scheduler.interval_epochs,
            ">= 1",
        )
        require(0 < scheduler.replaced <= 0.5, f"{where}.replaced", scheduler.replaced, "0 to 0.5")

    @property
    def population(self) -> bool:
        """Whether trials are members of one population, compared while they train."""
        return self.scheduler.name == "pbt"

    @property
    def single(self) -> bool:
        """Whether there is one best suggestion rather than a front of them."""
        return len(self.objectives) == 1

    def identity(self, base_key: str) -> str:
        """Return the hash of the search over one base; raising `trials` does not change it.

        Not for a population, where a member more changes what becomes of the others.
        """
        content = {k: v for k, v in asdict(self).items() if k != "trials" or self.population}
        if not self.population:
            for name in ("interval_epochs", "replaced"):
                del content["scheduler"][name]
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
        raise UserError(
            f"search.space: found {key!r}, {nearest(key, valid)}expected a key of model or train: "
            + ", ".join(valid)
        )


def _check_objective(name: str) -> None:
    if name not in OBJECTIVES:
        hint = nearest(name.replace("test_", "val_"), OBJECTIVES)
        why = " (test scenes choose nothing)" if name.startswith("test") else ""
        raise UserError(
            f"search.objectives: found {name!r}, {hint}expected one of {', '.join(OBJECTIVES)}{why}"
        )
