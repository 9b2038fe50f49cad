"""Descriptions of runs for MLflow's UI: a text in Markdown, and the data sets."""

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
"""MLflow's contexts of data sets by part of the data."""


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= (
            flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def _line(text: object) -> str:
    """Return a text on one line, escaped for a table in Markdown."""
    return " ".join(str(text).split()).replace("|", "\\|")


def study_note(study: Study, path: str) -> str:
    """Return the description of a study's run: its title, its variations, and a command."""
    lines = [f"# {_line(study.title)}", "", "What varies:", ""]
    lines += [f"- case **{name}**: {_line(case.label)}" for name, case in study.cases.items()]
    lines += [f"- `{key}`: {_line(values)}" for key, values in study.axes.items()]
    lines += [f"- seeds: {_line(study.seeds)}", "", "Render its table from the recorded runs:", ""]
    return "\n".join([*lines, f"    mhiflab table {path}", ""])


def trial_note(study: Study, label: str, spec: Spec, path: str) -> str:
    """Return the description of a trial's run: its protocol, and its changes to the base."""
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
    base_values, values = flatten(asdict(base)), flatten(asdict(spec))
    changed = [key for key in {**base_values, **values} if base_values.get(key) != values.get(key)]
    if not changed:
        return "\n".join([*lines, "The study's base as it is.", ""])
    lines += ["| setting | base | here |", "|---|---|---|"]
    lines += [f"| {k} | {_line(base_values.get(k))} | {_line(values.get(k))} |" for k in changed]
    return "\n".join([*lines, ""])


def dataset_inputs(data: DataConfig, survey: Survey) -> dict[str, Mapping[str, str]]:
    """Return MLflow's data sets by context.

    MLflow takes only 36 characters of a digest, so the profile holds the whole fingerprint.
    """
    datasets: dict[str, Mapping[str, str]] = {}
    for part, context in CONTEXTS.items():
        scenes = [scene.name for scene in survey.scenes if scene.part == part]
        if scenes:
            datasets[context] = {
                "name": f"{data.source} {context}"[-500:],
                "digest": survey.fingerprint[:36],
                "source_type": "local",
                "source": json.dumps({"uri": data.source}),
                "profile": json.dumps({"fingerprint": survey.fingerprint, "scenes": scenes}),
            }
    return datasets
