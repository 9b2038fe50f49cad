"""The trials of a study: every case at every point of the axes with every seed."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from feinfn.config import DataConfig, ModelConfig
from feinfn.data.source import resolve_data
from feinfn.errors import UserError, nearest
from feinfn.methods.cost import match_parameters, parameters_of
from feinfn.methods.registry import FEINFN
from mhiflab.study.schema import Case, SmokeVariant, Study
from mhiflab.study.settings import with_keys
from mhiflab.study.smoke import smoke_settings
from mhiflab.study.spec import Resources, Spec, parse_trial


@dataclass(frozen=True)
class Trial:
    """One spec to be executed, and where it stands in its study."""

    case: str
    label: str
    spec: Spec
    resources: Resources


def settings_at(study: Study, case: Case, point: dict[str, Any], where: str) -> dict[str, Any]:
    """Return the base with a case's and an axis point's values, reduced in a smoke variant."""
    varied = {**case.set, **point}
    base, others = _for_model(study.base, varied)
    if not isinstance(study, SmokeVariant):
        return with_keys(base, varied, where)
    before, after = smoke_settings(study.base, varied)
    last = {**after, **study.smoke.set}
    if others:
        # What makes FeINFN small are no keys of others.
        before, last = ({k: v for k, v in one.items() if _is_common(k)} for one in (before, last))
    settings = with_keys(with_keys(base, before, where), varied, where)
    return with_keys(settings, last, where)


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
