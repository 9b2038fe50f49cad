"""The fields of a study file."""

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from feinfn.config import STRICT, require
from mhiflab.study.search import Search

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+=-]*")
"""Names of studies and cases: they become names of folders, files and tags."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A named variation of the base."""

    __pydantic_config__: ClassVar[dict] = STRICT

    label: str
    """The row's name in tables and figures."""
    set: dict[str, Any] = field(default_factory=dict)
    """Dotted keys of the base and their values, such as `model.fourier_branch: false`."""
    match_parameters: str | None = None
    """Another case whose parameter count this one takes: model.feat_dim and model.guide_dim (set
    equal) are solved for."""


@dataclass(frozen=True, kw_only=True)
class Retry:
    """What is tried again within one `run`; anything else waits for `mhiflab retry`."""

    __pydantic_config__: ClassVar[dict] = STRICT

    lost: int = 3
    """Times that a trial continues elsewhere after its process, worker or node was lost."""
    oom: Literal["fail", "accumulate"] = "fail"
    """accumulate: where a GPU's memory ends, take the same batch in twice as many parts."""

    def __post_init__(self) -> None:
        require(self.lost >= 0, "retry.lost", self.lost, "an integer >= 0")


@dataclass(frozen=True, kw_only=True)
class Stop:
    """When a `run` ends early; what it leaves continues with the next `run`."""

    __pydantic_config__: ClassVar[dict] = STRICT

    hours: float | None = None
    """Hours after which running trials are interrupted."""
    failures: int | None = None
    """Failed trials after which no other is started."""

    def __post_init__(self) -> None:
        hours, failures = self.hours, self.failures
        require(hours is None or hours > 0, "stop.hours", hours, "a number > 0, or null")
        require(failures is None or failures >= 1, "stop.failures", failures, "an integer >= 1")


@dataclass(frozen=True, kw_only=True)
class Smoke:
    """What the study's smoke variant changes beyond its usual reductions."""

    __pydantic_config__: ClassVar[dict] = STRICT

    set: dict[str, Any] = field(default_factory=dict)
    """Dotted keys and their values, over everything else."""
    cases: list[str] | None = None
    """The cases that are tried; null: all."""
    axes: dict[str, list[Any]] | None = None
    """Axes instead of the study's; null: the first and last value of each."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study file; `name` is the file's stem."""

    __pydantic_config__: ClassVar[dict] = STRICT

    title: str
    """One line for consoles and table captions."""
    base: dict[str, Any] = field(default_factory=dict)
    """Settings that all trials share; keys of model, data, protocol, train, resources. `from: NAME`
    (a study or a file with such settings, `from: NAME/CASE` for one of its cases) comes first."""
    cases: dict[str, Case] = field(default_factory=dict)
    """Named variations; the order is the order of table rows."""
    axes: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted keys and their values; every case is run at every combination."""
    seeds: list[int] = field(default_factory=lambda: [1])
    """Seeds of every case."""
    search: Search | None = None
    """What to search for around every case, trained with the first seed."""
    baseline: str | None = None
    """The case that all others are compared with, of one with axes its first point; null: the
    first."""
    retry: Retry = field(default_factory=Retry)
    """What is tried again by itself."""
    stop: Stop = field(default_factory=Stop)
    """When a run of the study ends early."""
    smoke: Smoke = field(default_factory=Smoke)
    """Its variant that runs in a minute on two cores, on the embedded sample (`--smoke`)."""


class SmokeVariant(Study):
    """A study whose every trial is reduced, and then changed by `smoke.set`."""
