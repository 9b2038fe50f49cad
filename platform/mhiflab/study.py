"""Studies: what a study file may say, and the trials it expands to."""

import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

from feinfn.config import STRICT, DataConfig, ModelConfig, require
from feinfn.data.source import resolve_data
from feinfn.errors import UserError, nearest
from feinfn.methods.cost import match_parameters, parameters_of
from feinfn.methods.registry import FEINFN
from mhiflab.paths import shipped_studies, study_path
from mhiflab.reading import build, check_line, check_study, read_yaml
from mhiflab.search import Scheduler, Search
from mhiflab.smoke import smoke_settings
from mhiflab.spec import Resources, Spec, parse_trial

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


@dataclass(frozen=True)
class Trial:
    """One spec to be executed, and where it stands in its study."""

    case: str
    label: str
    spec: Spec
    resources: Resources


def _set(settings: dict[str, Any], key: str, value: Any, where: str) -> dict[str, Any]:
    """Return settings with one dotted key changed."""
    head, _, rest = key.partition(".")
    if not rest:
        return {**settings, head: value}
    inner = settings.get(head, {})
    if head == "protocol" and isinstance(inner, str):
        inner = {"preset": inner}
    if not isinstance(inner, Mapping):
        raise UserError(f"{where}: key {key!r} leads through {head!r}, which holds no keys")
    return {**settings, head: _set(dict(inner), rest, value, where)}


def _set_all(settings: dict[str, Any], changes: Mapping[str, Any], where: str) -> dict[str, Any]:
    for key, value in changes.items():
        settings = _set(settings, key, value, where)
    return settings


def _merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of which the second win, key by key."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and key == "protocol" and isinstance(below, str):
            below = {"preset": below}
        nested = isinstance(below, Mapping) and isinstance(value, Mapping)
        # A preset replaces what it is a preset of.
        nested = nested and "preset" not in value
        merged[key] = _merged(below, value) if nested else value  # type: ignore[arg-type]
    return merged


def _base(base: dict[str, Any], path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a base with what its `from` names underneath; raise `UserError`."""
    if "from" not in base:
        return base
    given = base["from"]
    own = {key: value for key, value in base.items() if key != "from"}
    where = f"{path}: base.from"
    if not isinstance(given, str):
        raise UserError(f"{where}: found {given!r}, expected a study, or STUDY/CASE")
    below, case = _named_file(given, path, where)
    if below.resolve() in (path.resolve(), *seen):
        raise UserError(f"{where}: found {given!r}, which is based on this study itself")
    value = read_yaml(below)
    if "title" not in value:
        if case:
            raise UserError(f"{where}: {below} has no cases, found {case!r}; leave it out")
        return _merged(_base(value, below, (*seen, path.resolve())), own)
    study: Study = build(Study, value, str(below))
    if case and case not in study.cases:
        names = ", ".join(study.cases)
        raise UserError(f"{where}: found case {case!r}, expected one of {below}: {names}")
    settings = _base(study.base, below, (*seen, path.resolve()))
    if case:
        settings = _set_all(settings, study.cases[case].set, str(below))
    return _merged(settings, own)


def _named_file(given: str, path: Path, where: str) -> tuple[Path, str]:
    """Return the file and the case that `from` means: beside the study, or a shipped one."""
    for text, case in ((given, ""), tuple(given.rpartition("/")[::2])):
        for found in (path.parent / text, path.parent / f"{text}.yaml", study_path(text)):
            if text and found.is_file():
                return found, case
    names = ", ".join(shipped_studies())
    raise UserError(
        f"{where}: found {given!r}, expected a study file (relative to this one) or one of {names}"
    )


def read_study(path: Path, smoke: bool = False) -> Study:
    """Read a study file, or its smoke variant; raise `UserError` naming file, key and remedy.

    The returned study's base holds everything that its `from` names.
    """
    check_study(path)
    study: Study = build(Study, read_yaml(path), str(path))
    _check_name(path.stem, f"{path}: the file's name")
    check_line(study.title, f"{path}: title")
    for name, case in study.cases.items():
        _check_name(name, f"{path}: cases")
        check_line(case.label, f"{path}: cases.{name}.label")
    study = replace(study, base=_base(study.base, path))
    if not study.cases:
        study = replace(study, cases={"base": Case(label=study.title)})
    if study.baseline is not None and study.baseline not in study.cases:
        raise UserError(
            f"{path}: baseline: found {study.baseline!r}, "
            f"{nearest(study.baseline, study.cases)}expected one of the cases: "
            + ", ".join(study.cases)
        )
    for name, values in {"seeds": study.seeds, **study.axes}.items():
        if not values or len({json.dumps(v) for v in values}) != len(values):
            raise UserError(f"{path}: {name}: found {values}, expected distinct values")
    return _smoke(study, path) if smoke else study


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(
            f"{where}: found {name!r}, expected letters, digits and . _ + = - with a letter or "
            "digit first, because folders and tags are named after it"
        )


def _smoke(study: Study, path: Path) -> Study:
    """Return the study's smoke variant: few values of everything, and one seed."""
    wanted = study.smoke
    chosen = list(study.cases) if wanted.cases is None else wanted.cases
    for name in chosen:
        if name not in study.cases:
            names = ", ".join(study.cases)
            raise UserError(f"{path}: smoke.cases: found {name!r}, expected some of {names}")
    axes = wanted.axes
    if axes is None:
        ends = {key: (values[0], values[-1]) for key, values in study.axes.items()}
        axes = {key: list({json.dumps(v): v for v in both}.values()) for key, both in ends.items()}
    search = study.search
    if search is not None:
        few = replace(search.scheduler, interval_epochs=1) if search.population else Scheduler()
        search = replace(search, trials=min(search.trials, 3), scheduler=few)
    same = {one.name: getattr(study, one.name) for one in fields(study)}
    reduced = {
        "search": search,
        "title": f"{study.title} (smoke)",
        "cases": {name: study.cases[name] for name in chosen},
        "axes": axes,
        "seeds": study.seeds[:1],
    }
    return SmokeVariant(**(same | reduced))


def settings_at(study: Study, case: Case, point: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the base with a case's and an axis point's values, reduced in a smoke variant."""
    varied = {**case.set, **point}
    base, others = _for_model(study.base, varied)
    if not isinstance(study, SmokeVariant):
        return _set_all(base, varied, where)
    before, after = smoke_settings(study.base, varied)
    last = {**after, **study.smoke.set}
    if others:
        # What makes FeINFN small are no keys of others.
        before, last = ({k: v for k, v in one.items() if _is_common(k)} for one in (before, last))
    settings = _set_all(_set_all(base, before, where), varied, where)
    return _set_all(settings, last, where)


def _is_common(key: str) -> bool:
    return not key.startswith("model.") or key in ("model.hsi_bands", "model.msi_bands")


def _for_model(base: dict[str, Any], varied: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return the base for the model that is asked for, and whether that is none of FeINFN's.

    A case that names another model than the base takes from the base's only the band counts.
    """
    own = base.get("model", {})
    before = own.get("name", FEINFN) if isinstance(own, Mapping) else FEINFN
    name = varied.get("model.name", before)
    if name != before:
        base = {**base, "model": {k: v for k, v in own.items() if _is_common(f"model.{k}")}}
    return base, name != FEINFN


def _matched_case(study: Study, name: str, where: str) -> Case | None:
    """Return the case whose parameter count a case takes, if any; raise `UserError`."""
    case = study.cases[name]
    wanted = case.match_parameters
    if wanted is None:
        return None
    where = f"{where}: cases.{name}.match_parameters"
    others = [c for c, one in study.cases.items() if c != name and one.match_parameters is None]
    if wanted not in others:
        raise UserError(
            f"{where}: found {wanted!r}, {nearest(wanted, others)}expected a case without "
            "match_parameters: " + ", ".join(others)
        )
    for key in ("model.feat_dim", "model.guide_dim"):
        if key in case.set or key in study.axes:
            raise UserError(
                f"{where}: found {key} in the case's set or in axes, expected neither, because "
                "match_parameters solves for it"
            )
    return study.cases[wanted]


def expand(
    study: Study, where: str, resolve: Callable[[DataConfig], DataConfig] = resolve_data
) -> list[Trial]:
    """Return the study's trials: cases, then axes, then seeds, in the order of the file.

    `resolve` names every scene of the data.
    """
    trials = []
    for case_name, case in study.cases.items():
        other = _matched_case(study, case_name, where)
        for values in itertools.product(*study.axes.values()):
            point = dict(zip(study.axes, values, strict=True))
            suffix = ", ".join(f"{k.split('.')[-1]} {v}" for k, v in point.items())
            name = "/".join([case_name, *(f"{k}={v}" for k, v in point.items())])
            label = f"{case.label}, {suffix}" if suffix else case.label
            settings = settings_at(study, case, point, where)
            spec, resources = parse_trial(
                settings, study.seeds[0], f"{where}: case {name}", resolve
            )
            if other is not None:
                like = settings_at(study, other, point, where)
                target = parameters_of(parse_trial(like, study.seeds[0], where, resolve)[0].model)
                if not isinstance(spec.model, ModelConfig):
                    raise UserError(
                        f"{where}: cases.{case_name}.match_parameters: found with another model, "
                        "expected with FeINFN, whose widths are solved for; leave it out"
                    )
                spec = replace(spec, model=match_parameters(spec.model, target))
            # Without training nothing depends on a seed.
            seeds = study.seeds if spec.trained else study.seeds[:1]
            trials += [Trial(name, label, replace(spec, seed=s), resources) for s in seeds]
    return trials
