"""Search of a study: its space, objectives, algorithm and scheduler."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from itertools import islice, product
from typing import Annotated, Any, Literal

from feinfn.config import CHANGEABLE, TrainConfig
from feinfn.errors import require, require_one_of
from feinfn.fields import Bound, Count, Finite, Items, Positive, Settings
from feinfn.methods.configs import LEARNED
from feinfn.metrics.label import METRICS

Values = dict[str, Any]
"""Searched keys and their values."""

COSTS = ("parameters", "train_seconds", "flops")
"""Objectives beside validation metrics; `flops` counts one forward pass per HR pixel."""

OBJECTIVES = (*(f"val_{name}" for name in METRICS), *COSTS)
"""Valid objectives of a search."""

MOST_CORNERS = 256
"""Corners of a space that are checked before the search begins."""


@dataclass(frozen=True, kw_only=True)
class Range(Settings):
    """Values that one key may take; exactly one field is set."""

    uniform: tuple[Finite, Finite] | None = None
    """Any number between two bounds."""
    log_uniform: tuple[Positive, Positive] | None = None
    """Any number between two bounds > 0, uniform in its logarithm."""
    integer: tuple[int, int] | None = None
    """An integer between two bounds, both included."""
    choice: Annotated[tuple[Any, ...], Items(least=2, distinct=True)] | None = None
    """One of two or more values."""

    def check(self, where: str) -> None:
        """Raise `UserError` unless exactly one field is set and it holds more than one value."""
        kinds = [name for name in _KINDS if getattr(self, name) is not None]
        expected = "one of " + ", ".join(_KINDS)
        require(len(kinds) == 1, where, ", ".join(kinds) or "nothing", expected)
        ends = list(self.ends)
        rising = self.choice is not None or ends[0] < ends[1]
        require(rising, f"{where}.{kinds[0]}", ends, "the lower bound first")

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
class Scheduler(Settings, section="search.scheduler"):
    """Rule that stops, or replaces, trials that fall behind."""

    name: Literal["none", "asha", "median", "pbt"] = "none"
    """asha: successive halving; median: stop trials behind the median of the others; pbt:
    population based training, in which the worst members continue from the weights of the best
    with other values."""
    grace_epochs: Count = 2
    """Epochs that every trial trains before it may be stopped."""
    reduction: Annotated[float, Bound(gt=1)] = 3
    """asha: one in so many trials passes each rung."""
    interval_epochs: Count = 2
    """pbt: epochs between two comparisons of the population."""
    replaced: Annotated[float, Bound(gt=0, le=0.5)] = 0.25
    """pbt: share of the population that is replaced at each comparison."""


@dataclass(frozen=True, kw_only=True)
class Search(Settings, section="search"):
    """Search for the values of some keys that are best on the validation scenes."""

    space: dict[str, Range]
    """Dotted keys of model and train, and the values they may take."""
    objectives: dict[str, Literal["max", "min"]]
    """One or two validation metrics and costs, at least one of them a metric."""
    algorithm: Literal["random", "tpe", "nsga2"] = "tpe"
    """random: values that follow from the seed alone; tpe, nsga2: Optuna's, which learn from the
    results so far."""
    trials: Annotated[int, Bound(ge=2)] = 20
    """Number of suggestions; the first is the base itself."""
    seed: int = 1
    """Seed of the suggestions; trainings take the study's seeds."""
    scheduler: Scheduler = field(default_factory=Scheduler)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.space) > 0, "search.space", self.space, "at least one key")
        # Of all models: the plan names a key that is another model's.
        sections = [("model", kind) for kind in LEARNED.values()] + [("train", TrainConfig)]
        keys = (f"{name}.{f.name}" for name, kind in sections for f in fields(kind))
        valid = [key for key in dict.fromkeys(keys) if key != "model.name"]
        for key, value_range in self.space.items():
            require_one_of("search.space", key, valid, "a key of model or train: ")
            value_range.check(f"search.space.{key}")
        names = list(self.objectives)
        for name in names:
            expected = f"{name.replace('test_', 'val_')}, because test scenes choose nothing"
            require(not name.startswith("test_"), "search.objectives", name, expected)
            require_one_of("search.objectives", name, OBJECTIVES)
        has_metric = any(name not in COSTS for name in names)
        expected = "one or two, at least one of them a validation metric such as val_psnr"
        require(len(names) in (1, 2) and has_metric, "search.objectives", names, expected)
        self._check_scheduler()

    def _check_scheduler(self) -> None:
        scheduler = self.scheduler.name
        expected = "none with two objectives, because a stopped trial has no cost to compare"
        require(self.single or scheduler == "none", "search.scheduler.name", scheduler, expected)
        if not self.population:
            return
        expected = "random with pbt, which varies the random values of the first members"
        require(self.algorithm == "random", "search.algorithm", self.algorithm, expected)
        changeable = [f"train.{name}" for name in CHANGEABLE]
        expected = "a uniform or log_uniform range of a key that may change during training, with "
        expected += "pbt: " + ", ".join(changeable)
        for key, one in self.space.items():
            varies = key in changeable and bool(one.uniform or one.log_uniform)
            require(varies, "search.space", key, expected)

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
