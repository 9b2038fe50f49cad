"""What MLflow's UI says of a run: a description in Markdown, and its data sets."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from feinfn.config import DataConfig
from feinfn.data.source import Survey
from feinfn.errors import UserError
from mhiflab.study.schema import Study
from mhiflab.study.spec import Spec, parse_trial

CONTEXTS = {"train": "training", "validation": "validation", "test": "test"}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _line(text: object) -> str:
    """Return a text on one line, with what a table in Markdown would take for its own escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")


def study_note(study: Study, path: str) -> str:
    """Return the description of a study's run: title, what varies, and how to render its table."""
    lines = [f"# {_line(study.title)}", "", "What varies:", ""]
    lines += [f"- case **{name}**: {_line(case.label)}" for name, case in study.cases.items()]
    lines += [f"- `{key}`: {_line(values)}" for key, values in study.axes.items()]
    lines += [f"- seeds: {_line(study.seeds)}", "", "Render its table from the recorded runs:", ""]
    return "\n".join([*lines, f"    mhiflab table {path}", ""])


def trial_note(study: Study, label: str, spec: Spec, path: str) -> str:
    """Return the description of a trial: what it is, and what differs from the study's base."""
    protocol, train = spec.protocol, spec.train
    lines = [
        f"**{_line(label)}**, seed {spec.seed}, of *{_line(study.title)}* (`{path}`).",
        "",
        f"Protocol {_line(protocol.name)}: {_line(protocol.about)} {train.epochs} epochs on "
        f"`{_line(spec.data.source)}`.",
        "",
    ]
    try:
        base, _ = parse_trial(study.base, spec.seed, path)
    except UserError:
        return "\n".join([*lines, "The study's base alone is no complete experiment.", ""])
    before, here = flatten(asdict(base)), flatten(asdict(spec))
    changed = [key for key in {**before, **here} if before.get(key) != here.get(key)]
    if not changed:
        return "\n".join([*lines, "The study's base as it is.", ""])
    lines += ["| setting | base | here |", "|---|---|---|"]
    lines += [f"| {k} | {_line(before.get(k))} | {_line(here.get(k))} |" for k in changed]
    return "\n".join([*lines, ""])


def dataset_inputs(data: DataConfig, survey: Survey) -> dict[str, Mapping[str, str]]:
    """Return MLflow's data sets by context.

    MLflow takes 36 characters of a digest, so the whole fingerprint stands in the profile.
    """
    found: dict[str, Mapping[str, str]] = {}
    for part, context in CONTEXTS.items():
        scenes = [scene.name for scene in survey.scenes if scene.part == part]
        if scenes:
            found[context] = {
                "name": f"{data.source} {context}"[-500:],
                "digest": survey.fingerprint[:36],
                "source_type": "local",
                "source": json.dumps({"uri": data.source}),
                "profile": json.dumps({"fingerprint": survey.fingerprint, "scenes": scenes}),
            }
    return found
