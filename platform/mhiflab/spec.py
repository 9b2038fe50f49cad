"""Specs and studies: what a YAML file may say, and the trials it expands to."""

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from feinfn.config import (
    PRESETS,
    RECIPES,
    STRICT,
    DataConfig,
    ModelConfig,
    TrainConfig,
    require,
)
from feinfn.data.source import resolve_data
from feinfn.describe import match_parameters, parameters_of
from feinfn.errors import UserError
from feinfn.protocols import PROTOCOLS, Protocol
from mhiflab.paths import shipped_studies
from mhiflab.search import Search


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one trial asks of the cluster; outside the run key, because results do not follow it.

    Every worker count trains on the same batches in the same order.
    """

    __pydantic_config__: ClassVar[dict] = STRICT

    workers: int = 1
    """Ray Train workers sharing every batch; 0 trains inside the trial's own process."""
    cpus_per_worker: float = 1.0
    """CPUs of each worker (of the trial itself with workers: 0)."""
    gpus_per_worker: float = 0.0
    """GPUs of each worker, fractions allowed."""
    memory_mib: float | None = None
    """Memory for fusing one whole image, in MiB above the resting process; null: unbounded."""
    recompute: bool = False
    """Keep fewer activations while training and compute them again: slower, for large patches."""

    def __post_init__(self) -> None:
        require(self.workers >= 0, "resources.workers", self.workers, "an integer >= 0")
        cpus, gpus = self.cpus_per_worker, self.gpus_per_worker
        require(cpus >= 0.1, "resources.cpus_per_worker", cpus, "a number >= 0.1")
        require(gpus >= 0, "resources.gpus_per_worker", gpus, "a number >= 0")
        memory = self.memory_mib
        require(
            memory is None or 0 < memory < float("inf"),
            "resources.memory_mib",
            memory,
            "a number > 0, or null",
        )


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One fully resolved experiment: what determines a result, and nothing else."""

    __pydantic_config__: ClassVar[dict] = STRICT

    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    protocol: Protocol = field(default_factory=lambda: PROTOCOLS["cave_x4"])
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 1

    def __post_init__(self) -> None:
        require(self.seed >= 0, "seed", self.seed, "an integer >= 0")


@dataclass(frozen=True, kw_only=True)
class Base(Spec):
    """What a study's `base` may hold: a spec without its seed, and resources."""

    seed: ClassVar[int] = 1  # type: ignore[misc]
    resources: Resources = field(default_factory=Resources)


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
class Study:
    """A study file; `name` is the file's stem."""

    __pydantic_config__: ClassVar[dict] = STRICT

    title: str
    """One line for consoles and table captions."""
    base: dict[str, Any] = field(default_factory=dict)
    """Settings that all trials share; keys of model, data, protocol, train, resources."""
    cases: dict[str, Case] = field(default_factory=dict)
    """Named variations; the order is the order of table rows."""
    axes: dict[str, list[Any]] = field(default_factory=dict)
    """Dotted keys and their values; every case is run at every combination."""
    seeds: list[int] = field(default_factory=lambda: [1])
    """Seeds of every case."""
    search: Search | None = None
    """What to search for around every case, trained with the first seed."""


@dataclass(frozen=True)
class Trial:
    """One spec to be executed, and where it stands in its study."""

    case: str
    label: str
    spec: Spec
    resources: Resources


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 as a number and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is given twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def _valid_keys(root: Any, path: Iterable[str | int]) -> list[str]:
    """Return the field names valid at a path of nested dataclasses."""
    current = root
    for step in path:
        hint = get_type_hints(current).get(str(step)) if is_dataclass(current) else None
        # Below cases.<name> the mapping's value type applies.
        args = [one for one in getattr(hint, "__args__", ()) if one is not type(None)]
        current = hint if is_dataclass(hint) else (args[-1] if args else current)
    return [f.name for f in fields(current)] if is_dataclass(current) else []


def _complain(where: str, kind: Any, error: ValidationError) -> UserError:
    """Turn pydantic's first complaint into one sentence that says what to do."""
    first = error.errors()[0]
    path = [str(step) for step in first["loc"]]
    here = ".".join(path) or "the file"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        valid = _valid_keys(kind, path[:-1])
        nearest = get_close_matches(path[-1], valid, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]!r}? " if nearest else ""
        return UserError(f"{where}: unknown key {here!r}; {hint}valid keys: {', '.join(valid)}")
    if first["type"] == "value_error":
        return UserError(f"{where}: {first['ctx']['error']}")
    found = first["input"] if first["type"] != "missing" else "nothing"
    return UserError(f"{where}: {here}: found {found!r}, expected: {first['msg']}")


def _build(kind: Any, value: Any, where: str) -> Any:
    """Validate a plain value as a dataclass, strictly; raise `UserError`."""
    try:
        # Through JSON, because strict JSON reading takes lists for tuples and 1 for 1.0.
        return TypeAdapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        raise _complain(where, kind, error) from None
    except TypeError as error:
        raise UserError(f"{where}: {error}; use plain YAML values") from None


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


NAMED: dict[str, Mapping[str, Any]] = {"model": PRESETS, "train": RECIPES, "protocol": PROTOCOLS}
"""What `preset` may name in each section; a protocol alone may be given by its name only."""


def _resolve_named(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """Replace every section's preset by the fields it stands for; its other keys override them.

    A protocol that was changed gets a name that tells so.
    """
    resolved = dict(settings)
    for section, known in NAMED.items():
        value = settings.get(section)
        if section == "protocol" and isinstance(value, str):
            value = {"preset": value}
        if not isinstance(value, Mapping) or "preset" not in value:
            continue
        given = {k: v for k, v in value.items() if k != "preset"}
        name = value["preset"]
        if name not in known:
            close = get_close_matches(str(name), known, n=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            field_name = "protocol" if section == "protocol" else f"{section}.preset"
            raise UserError(
                f"{where}: {field_name}: found {name!r}, {hint}expected {', '.join(known)}"
            )
        if section == "protocol" and given:
            changes = "+".join(f"{k}={v}" for k, v in sorted(given.items()))
            given = {"name": f"{name}+{changes}", **given}
        resolved[section] = {**asdict(known[name]), **given}
    return resolved


def parse_trial(settings: dict[str, Any], seed: int, where: str) -> tuple[Spec, Resources]:
    """Return the resolved spec and resources of one trial's settings; raise `UserError`."""
    base: Base = _build(Base, _resolve_named(settings, where), where)
    shared = {f.name: getattr(base, f.name) for f in fields(Spec) if f.name != "seed"}
    if base.protocol.srf.endswith(".csv"):
        # Absolute, because workers may run elsewhere.
        table = str(Path(base.protocol.srf).expanduser().resolve())
        shared["protocol"] = replace(base.protocol, srf=table)
    spec = Spec(**shared, seed=seed)
    return replace(spec, data=resolve_data(spec.data)), base.resources


def read_study(path: Path) -> Study:
    """Read a study file; raise `UserError` naming file, key and remedy."""
    if not path.is_file():
        names = ", ".join(shipped_studies())
        raise UserError(f"{path}: no such study file; give a YAML file or one of: {names}")
    try:
        # S506 guards against unsafe loaders; this one derives from SafeLoader.
        value = yaml.load(path.read_text(), Loader=_Loader)  # noqa: S506
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: found {type(value).__name__}, expected keys such as title, base")
    study: Study = _build(Study, value, str(path))
    if not study.cases:
        study = replace(study, cases={"base": Case(label=study.title)})
    for name, values in {"seeds": study.seeds, **study.axes}.items():
        if not values or len({json.dumps(v) for v in values}) != len(values):
            raise UserError(f"{path}: {name}: found {values}, expected distinct values")
    return study


def _settings(study: Study, case: Case, point: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the base with a case's and an axis point's values."""
    settings: dict[str, Any] = study.base
    for key, value in {**case.set, **point}.items():
        settings = _set(settings, key, value, where)
    return settings


def _matched_case(study: Study, name: str, where: str) -> Case | None:
    """Return the case whose parameter count a case takes, if any; raise `UserError`."""
    case = study.cases[name]
    wanted = case.match_parameters
    if wanted is None:
        return None
    where = f"{where}: cases.{name}.match_parameters"
    others = [c for c, one in study.cases.items() if c != name and one.match_parameters is None]
    if wanted not in others:
        found = get_close_matches(wanted, others, n=1)
        hint = f"did you mean {found[0]!r}? " if found else ""
        raise UserError(
            f"{where}: found {wanted!r}, {hint}expected a case without match_parameters: "
            + ", ".join(others)
        )
    for key in ("model.feat_dim", "model.guide_dim"):
        if key in case.set or key in study.axes:
            raise UserError(
                f"{where}: found {key} in the case's set or in axes, expected neither, because "
                "match_parameters solves for it"
            )
    return study.cases[wanted]


def expand(study: Study, where: str) -> list[Trial]:
    """Return the study's trials: cases, then axes, then seeds, in the order of the file."""
    trials = []
    for case_name, case in study.cases.items():
        other = _matched_case(study, case_name, where)
        for values in itertools.product(*study.axes.values()):
            point = dict(zip(study.axes, values, strict=True))
            settings = _settings(study, case, point, where)
            target = None
            if other is not None:
                model = _settings(study, other, point, where)
                like, _ = parse_trial(model, study.seeds[0], where)
                target = parameters_of(like.model)
            suffix = ", ".join(f"{k.split('.')[-1]} {v}" for k, v in point.items())
            name = "/".join([case_name, *(f"{k}={v}" for k, v in point.items())])
            label = f"{case.label}, {suffix}" if suffix else case.label
            for seed in study.seeds:
                spec, resources = parse_trial(settings, seed, f"{where}: case {name}")
                if target is not None:
                    spec = replace(spec, model=match_parameters(spec.model, target))
                trials.append(Trial(name, label, spec, resources))
    return trials
