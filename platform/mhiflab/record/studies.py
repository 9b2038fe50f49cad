"""Runs of studies: the parent that holds a study's trials in MLflow, and how its UI shows them."""

import getpass
import hashlib
import json
import re
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import urlencode

from mlflow.entities import Metric, Run

from feinfn.config import DataConfig
from feinfn.data.source import Survey
from feinfn.errors import UserError
from mhiflab.record import tag
from mhiflab.record.database.errors import explained
from mhiflab.record.store import EXPERIMENT_TAGS, Store, find_runs, tag_filter
from mhiflab.study.schema import Study
from mhiflab.study.settings import flatten
from mhiflab.study.spec import Spec, parse_trial

VIEW = "mlflow.sharedViewState."
"""Start of tags of an experiment; each holds a view that MLflow's UI opens by its key."""

FIRST = "metrics.`test_psnr`"
"""Column by which the runs of a study are sorted."""

COLUMNS = (
    *(f"tags.`{name}`" for name in (tag.CASE, tag.SEED)),
    FIRST,
    *(f"metrics.`test_{metric}`" for metric in ("sam", "ergas", "ssim")),
    *(f"metrics.`{name}`" for name in ("parameters", "train_seconds")),
)
"""Columns of the runs of a study, in the spelling of MLflow's UI."""

CONTEXTS = {"train": "training", "validation": "validation", "test": "test"}
"""MLflow's contexts of data sets by part of the data."""

LONGEST_NOTE = 8000
"""Characters that MLflow takes as a description."""


def study_run(store: Store, study: str, text: str, note: str = "") -> str:
    """Return the id of a study's parent run, created if missing, with the study file attached."""
    run_id = find_study(store, study)
    with explained(store.uri):
        if run_id is None:
            tags = {tag.KIND: "study", tag.STUDY: study, **context_tags()}
            run = store.client.create_run(store.experiment_id, run_name=f"study {study}", tags=tags)
            run_id = run.info.run_id
        store.client.set_tag(run_id, tag.NOTE, note[:LONGEST_NOTE])
        key, view = _view(study)
        for name, value in {**EXPERIMENT_TAGS, VIEW + key: json.dumps(view)}.items():
            store.client.set_experiment_tag(store.experiment_id, name, value)
        store.client.log_text(run_id, text, "study.yaml")
        for run in orphans(store, study):
            store.client.set_tag(run.info.run_id, tag.PARENT, run_id)
    return run_id


def find_study(store: Store, study: str) -> str | None:
    """Return the id of a study's parent run, None if the study was never run.

    The oldest counts if two labs have created one each.
    """
    runs = find_runs(store, {tag.KIND: "study", tag.STUDY: study})
    return runs[-1].info.run_id if runs else None


def context_tags() -> dict[str, str]:
    """Return MLflow's own tags for the user and the program that write a run."""
    source = {"mlflow.source.name": "mhiflab", "mlflow.source.type": "LOCAL"}
    return {"mlflow.user": getpass.getuser(), **source}


def _view(study: str) -> tuple[str, dict[str, Any]]:
    """Return the key and the content of a study's view in MLflow's UI."""
    content = {
        "searchFilter": tag_filter({tag.KIND: "trial", tag.STUDY: study}),
        "orderByKey": FIRST,
        "orderByAsc": False,
        "selectedColumns": COLUMNS,
        "columnOrder": COLUMNS,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": tag.CASE}],
        },
    }
    return f"mhiflab-{hashlib.sha256(study.encode()).hexdigest()[:16]}", content


def orphans(store: Store, study: str) -> list[Run]:
    """Return a study's trials whose parent was deleted."""
    parents = {run.info.run_id for run in find_runs(store, {tag.KIND: "study"})}
    trials = find_runs(store, {tag.KIND: "trial", tag.STUDY: study})
    return [run for run in trials if run.data.tags.get(tag.PARENT) not in parents]


def experiment_address(store: Store, server: str, **query: str) -> str:
    """Return the address at which MLflow's UI shows the runs, as those of trainings."""
    words = urlencode({**query, "workflowType": "machine_learning"})
    return f"{server.rstrip('/')}/#/experiments/{store.experiment_id}/runs?{words}"


def study_address(store: Store, study: str, server: str) -> str:
    """Return the address at which MLflow's UI shows a study's trials, grouped by case."""
    key, view = _view(study)
    with explained(store.uri):
        tags = store.client.get_experiment(store.experiment_id).tags
    if VIEW + key in tags:
        return experiment_address(store, server, viewStateShareKey=key)
    query = {"searchFilter": view["searchFilter"], "orderByKey": FIRST, "orderByAsc": "false"}
    return experiment_address(store, server, **query)


def describe_study(store: Store, study: str, note: str, means: Mapping[str, float]) -> None:
    """Give a study's run its description, and the means of its cases as metrics."""
    run_id = find_study(store, study)
    if run_id is None:
        return
    with explained(store.uri):
        recorded, now_ms = store.client.get_run(run_id).data.metrics, time.time_ns() // 10**6
        named = {re.sub(r"[^\w\-. :/]", "_", name): value for name, value in means.items()}
        metrics = [Metric(k, v, now_ms, 0) for k, v in named.items() if recorded.get(k) != v]
        store.client.set_tag(run_id, tag.NOTE, note[:LONGEST_NOTE])
        store.client.log_batch(run_id, metrics)


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
