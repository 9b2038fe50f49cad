"""Search of a study: its space, objectives, algorithm and scheduler."""

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
"""Objectives beside validation metrics; `flops` counts one forward pass per HR pixel."""

OBJECTIVES = (*(f"val_{name}" for name in METRICS), *COSTS)
"""Valid objectives of a search."""

MOST_CORNERS = 256
"""Corners of a space that are checked before the search begins."""


@dataclass(frozen=True, kw_only=True)
class Range:
    """Values that one key may take; exactly one field is set."""

    __pydantic_config__: ClassVar[dict] = STRICT

    uniform: tuple[float, float] | None = None
    """Any number between two bounds."""
    log_uniform: tuple[float, float] | None = None
    """Any number between two bounds > 0, uniform in its logarithm."""
    integer: tuple[int, int] | None = None
    """An integer between two bounds, both included."""
    choice: tuple[Any, ...] | None = None
    """One of two or more values."""

    def check(self, where: str) -> None:
        """Raise `UserError` unless exactly one field is set and it holds more than one value."""
        kinds = {f.name: getattr(self, f.name) for f in fields(self)}
        kinds = {name: value for name, value in kinds.items() if value is not None}
        require(
            len(kinds) == 1, where, ", ".join(kinds) or "nothing", "one of " + ", ".join(_KINDS)
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
        (kind, (low, high)), *_ = kinds.items()
        good = math.isfinite(low) and math.isfinite(high) and low < high
        require(good, f"{where}.{kind}", [low, high], "two finite numbers, the lower one first")
        if kind == "log_uniform":
            require(low > 0, f"{where}.{kind}", [low, high], "bounds > 0")

    @property
    def ends(self) -> tuple[Any, ...]:
        """The two bounds, or all choices."""
        return self.choice or self.uniform or self.log_uniform or self.integer or ()

    def at(self, fraction: float) -> Any:
        """Return the value at a fraction of the range, in [0, 1)."""
        if self.choice:
            return self.choice[int(fraction * len(self.choice))]
        low, high = self.ends
        if self.integer:
            return low + int(fraction * (high - low + 1))
        if self.log_uniform:
            return self.rounded(low * (high / low) ** fraction)
        return self.rounded(low + (high - low) * fraction)

    def rounded(self, value: float) -> float:
        """Return a value with 6 significant digits, for stable run keys, inside the bounds."""
        low, high = self.ends
        return min(max(float(f"{value:.6g}"), low), high)

    def holds(self, value: Any) -> bool:
        """Return True if the range contains a value."""
        if self.choice:
            return value in self.choice
        low, high = self.ends
        return isinstance(value, int | float) and low <= value <= high


_KINDS = [f.name for f in fields(Range)]
"""Kinds of ranges, one a field."""


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """Rule that stops, or replaces, trials that fall behind."""

    __pydantic_config__: ClassVar[dict] = STRICT

    name: Literal["none", "asha", "median", "pbt"] = "none"
    """asha: successive halving; median: stop trials behind the median of the others; pbt:
    population based training, in which the worst members continue from the weights of the best
    with other values."""
    grace_epochs: int = 2
    """Epochs that every trial trains before it may be stopped."""
    reduction: float = 3
    """asha: one in so many trials passes each rung."""
    interval_epochs: int = 2
    """pbt: epochs between two comparisons of the population."""
    replaced: float = 0.25
    """pbt: share of the population that is replaced at each comparison."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """Search for the values of some keys that are best on the validation scenes."""

    __pydantic_config__: ClassVar[dict] = STRICT

    space: dict[str, Range]
    """Dotted keys of model and train, and the values they may take."""
    objectives: dict[str, Literal["max", "min"]]
    """One or two validation metrics and costs, at least one of them a metric."""
    algorithm: Literal["random", "tpe", "nsga2"] = "tpe"
    """random: values that follow from the seed alone; tpe, nsga2: Optuna's, which learn from the
    results so far."""
    trials: int = 20
    """Number of suggestions; the first is the base itself."""
    seed: int = 1
    """Seed of the suggestions; trainings take the study's seeds."""
    scheduler: Scheduler = field(default_factory=Scheduler)

    def __post_init__(self) -> None:
        require(len(self.space) > 0, "search.space", self.space, "at least one key")
        for key, value_range in self.space.items():
            check_key(key)
            value_range.check(f"search.space.{key}")
        names = list(self.objectives)
        for name in names:
            _check_objective(name)
        has_metric = any(name not in COSTS for name in names)
        require(
            len(names) in (1, 2) and has_metric,
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
            "none with two objectives, because a stopped trial has no cost to compare",
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
            "random with pbt, which varies the random values of the first members",
        )
        for key, one in self.space.items():
            section, _, name = key.partition(".")
            require(
                section == "train" and name in CHANGEABLE and bool(one.uniform or one.log_uniform),
                "search.space",
                key,
                "a uniform or log_uniform range of a key that may change during training, with "
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
        """True if trials form one population and are compared while they train."""
        return self.scheduler.name == "pbt"

    @property
    def single(self) -> bool:
        """True if there is one best suggestion, False if there is a Pareto front."""
        return len(self.objectives) == 1

    def identity(self, base_key: str) -> str:
        """Return the hash of the search around one base, 16 hexadecimal digits.

        The hash leaves out `trials`, so that a search can be extended. It includes `trials` for a
        population, where another member changes the fate of the others.
        """
        content = {k: v for k, v in asdict(self).items() if k != "trials" or self.population}
        if not self.population:
            for name in ("interval_epochs", "replaced"):
                del content["scheduler"][name]
        text = json.dumps([base_key, content], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def corners(self) -> Iterator[Values]:
        """Yield the corners of the space, at most `MOST_CORNERS`."""
        ends = product(*(one.ends for one in self.space.values()))
        for values in islice(ends, MOST_CORNERS):
            yield dict(zip(self.space, values, strict=True))


def check_key(key: str) -> None:
    """Raise `UserError`, with the nearest valid key, unless a dotted key may be searched."""
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
        reason = " (test scenes choose nothing)" if name.startswith("test") else ""
        raise UserError(
            f"search.objectives: found {name!r}, {hint}expected one of "
            f"{', '.join(OBJECTIVES)}{reason}"
        )
