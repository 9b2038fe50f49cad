"""Expand a study into trials: every case at every point of the axes with every seed."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from feinfn.config import DataConfig, ModelConfig
from feinfn.data.source import resolve_data
from feinfn.errors import UserError, require_one_of
from feinfn.methods.configs import FEINFN
from feinfn.physics import Bands
from mhiflab.study.schema import Case, SmokeVariant, Study
from mhiflab.study.settings import inherited, model_name, with_keys
from mhiflab.study.smoke import NARROW, SHORT, on_sample
from mhiflab.study.spec import Resources, Spec, parse_trial
from mhiflab.study.yaml_values import build


@dataclass(frozen=True)
class Trial:
    """One spec to execute, with its place in the study."""

    case: str
    """The case's name, followed by the point of the axes: `base/model.feat_dim=32`."""
    label: str
    """The name in tables and figures."""
    spec: Spec
    resources: Resources
    shown: str | None = None
    """`model.shown` as the study states it; without it, it follows from `model.base`."""


def expand(
    study: Study, where: str, resolve: Callable[[DataConfig], DataConfig] = resolve_data
) -> list[Trial]:
    """Return the study's trials: cases, then axes, then seeds, in the order of the file.

    `resolve` replaces the data by one that names every scene. Raise `UserError` if a trial's
    settings are invalid.
    """
    trials = []
    for case_name, case in study.cases.items():
        matched = _matched_case(study, case_name, where)
        for values in itertools.product(*study.axes.values()):
            point = dict(zip(study.axes, values, strict=True))
            suffix = ", ".join(f"{k.split('.')[-1]} {v}" for k, v in point.items())
            name = "/".join([case_name, *(f"{k}={v}" for k, v in point.items())])
            label = f"{case.label}, {suffix}" if suffix else case.label
            settings = settings_at(study, case, point, where)
            spec, resources = parse_trial(
                settings, study.seeds[0], f"{where}: case {name}", resolve
            )
            if matched is not None:
                # Networks are counted for such cases alone: torch takes seconds to import.
                from feinfn.methods.cost import match_parameters, parameters_of

                like = settings_at(study, matched, point, where)
                target = parameters_of(parse_trial(like, study.seeds[0], where, resolve)[0].model)
                if not isinstance(spec.model, ModelConfig):
                    raise UserError(
                        f"{where}: cases.{case_name}.match_parameters: found it with another "
                        "model, expected FeINFN, whose widths are solved for; leave it out"
                    )
                spec = replace(spec, model=match_parameters(spec.model, target))
            # Without training, nothing depends on the seed.
            seeds = study.seeds if spec.trained else study.seeds[:1]
            shown = settings.get("model", {}).get("shown")
            ones = [Trial(name, label, replace(spec, seed=s), resources, shown) for s in seeds]
            if case.first_seed:
                first = _first_resources(study, case_name, settings, where)
                # Checked there too, but the smoke variant trains in its own small way.
                if not isinstance(study, SmokeVariant):
                    ones[0] = replace(ones[0], resources=first)
            trials += ones
    _check_starts(study, trials, where)
    return trials


def _first_resources(study: Study, name: str, settings: Mapping[str, Any], where: str) -> Resources:
    """Return the resources of a case's first seed.

    Raise `UserError` if they are invalid, or if the study searches, where one trial stands for all.
    """
    where = f"{where}: cases.{name}.first_seed"
    if study.search:
        raise UserError(
            f"{where}: found it in a study with a search, expected none, because the suggestions "
            "have the resources of the case; set them there"
        )
    changed = {**settings.get("resources", {}), **study.cases[name].first_seed}
    first: Resources = build(Resources, changed, where, "resources")
    return first


def _check_starts(study: Study, trials: Sequence[Trial], where: str) -> None:
    """Raise `UserError` if a case starts at no other, untrained case, or a start may mean two."""
    starts = {name: case.start for name, case in study.cases.items() if case.start is not None}
    # The smoke variant may leave out the case.
    if not starts or isinstance(study, SmokeVariant):
        return
    if "upsampled" in study.cases:
        raise UserError(
            f"{where}: cases: found a case upsampled in a study with starts, where this means the "
            "upsampled LR-HSI, expected another name; rename the case"
        )
    trained = {trial.case.split("/")[0] for trial in trials if trial.spec.trained}
    untrained = ["upsampled", *(case for case in study.cases if case not in trained)]
    for name, start in starts.items():
        others = [case for case in untrained if case != name]
        require_one_of(f"{where}: cases.{name}.start", start, others, "another, untrained case: ")


def _matched_case(study: Study, name: str, where: str) -> Case | None:
    """Return the case whose parameter count this case takes, None without `match_parameters`.

    Raise `UserError` if it names no such case, or if the widths to solve for are set already.
    """
    case = study.cases[name]
    target = case.match_parameters
    if target is None:
        return None
    where = f"{where}: cases.{name}.match_parameters"
    others = [c for c, one in study.cases.items() if c != name and one.match_parameters is None]
    require_one_of(where, target, others, "a case without match_parameters: ")
    for key in ("model.feat_dim", "model.guide_dim"):
        if key in case.set or key in study.axes:
            raise UserError(
                f"{where}: found {key} in the case's set or in axes, expected neither, because "
                "match_parameters solves for it"
            )
    return study.cases[target]


def settings_at(study: Study, case: Case, point: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the base with a case's and an axis point's values, reduced in a smoke variant."""
    varied = {**case.set, **point}
    settings = inherited(study.base, varied)
    name = varied.get("model.name", model_name(study.base))
    layers = [varied]
    if isinstance(study, SmokeVariant):
        above = {**SHORT, **on_sample(study.base, varied), **study.smoke.set}
        layers = [_keys_of(name, NARROW), varied, _keys_of(name, above)]
    for layer in layers:
        settings = with_keys(settings, layer, where)
    return settings


def _keys_of(name: Any, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return keys without those that make FeINFN small, unless the model is FeINFN."""
    every = {f"model.{field.name}" for field in fields(Bands)}
    any_model = {k: v for k, v in keys.items() if not k.startswith("model.") or k in every}
    return dict(keys) if name == FEINFN else any_model
