"""Fields of a study file."""

import re
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from feinfn.fields import Count, Items, Natural, Positive, Settings
from mhiflab.study.search import Search

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+=-]*")
"""Pattern of studies' and cases' names, which become names of folders, files and tags."""


Different = Annotated[list[Any], Items(distinct=True)]


@dataclass(frozen=True, kw_only=True)
class Case(Settings):
    """Named variation of the base."""

    label: str
    """Name of its row in tables and figures."""
    set: dict[str, Any] = field(default_factory=dict)
    """Dotted keys of the base and their values, such as `model.fourier_branch: false`."""
    match_parameters: str | None = None
    """Another case, whose parameter count this one takes: model.feat_dim and model.guide_dim (set
    equal) are solved for."""


@dataclass(frozen=True, kw_only=True)
class Retry(Settings, section="retry"):
    """Failures that one `run` tries again by itself; all others wait for `mhiflab retry`."""

    lost: Natural = 3
    """Times that a trial continues elsewhere after it lost its process, worker or node."""
    oom: Literal["fail", "accumulate"] = "fail"
    """accumulate: if a GPU runs out of memory, take the same batch in twice as many parts."""


@dataclass(frozen=True, kw_only=True)
class Stop(Settings, section="stop"):
    """Limits after which a `run` ends early; the next `run` continues its trials."""

    hours: Positive | None = None
    """Hours after which running trials are interrupted."""
    failures: Count | None = None
    """Failed trials after which no other starts."""


@dataclass(frozen=True, kw_only=True)
class Smoke(Settings):
    """Changes of the study's smoke variant beyond the usual reductions."""

    set: dict[str, Any] = field(default_factory=dict)
    """Dotted keys and their values, which override everything else."""
    cases: list[str] | None = None
    """Cases to try; null: all."""
    axes: dict[str, list[Any]] | None = None
    """Axes that replace the study's; null: the first and last value of each."""


@dataclass(frozen=True, kw_only=True)
class Study(Settings):
    """Content of a study file."""

    title: str
    """One line for consoles and table captions."""
    base: dict[str, Any] = field(default_factory=dict)
    """Settings that all trials share: keys of model, data, protocol, train and resources. They
    override those of `from: NAME` (a study, or a file with such settings) or `from: NAME/CASE`."""
    cases: dict[str, Case] = field(default_factory=dict)
    """Named variations, in the order of table rows."""
    axes: dict[str, Different] = field(default_factory=dict)
    """Dotted keys and their values; every case runs at every combination."""
    seeds: Annotated[list[Natural], Items(distinct=True)] = field(default_factory=lambda: [1])
    """Seeds of every case."""
    search: Search | None = None
    """Search around every case, trained with the first seed."""
    baseline: str | None = None
    """Case that all others are compared with, at its first point of the axes; null: the first."""
    retry: Retry = field(default_factory=Retry)
    """Failures that a run tries again by itself."""
    stop: Stop = field(default_factory=Stop)
    """Limits after which a run ends early."""
    smoke: Smoke = field(default_factory=Smoke)
    """Changes of the smoke variant (`--smoke`): a minute on two cores, on the embedded sample."""


class SmokeVariant(Study):
    """Study whose every trial is reduced, then changed by `smoke.set`."""
