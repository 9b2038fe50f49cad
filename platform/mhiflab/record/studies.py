"""Runs of studies: the parent that holds a study's trials in MLflow."""

import getpass
import hashlib
import json
import re
import time
from collections.abc import Mapping
from urllib.parse import urlencode

from mlflow.entities import Metric, Run

from mhiflab.record.database.errors import explained
from mhiflab.record.store import (
    CASE,
    EXPERIMENT_TAGS,
    KIND,
    NOTE,
    SEED,
    STUDY,
    Store,
    find_runs,
    tag_filter,
)

PARENT = "mlflow.parentRunId"
"""Tag of a run: the one that MLflow's UI shows it under."""

VIEW = "mlflow.sharedViewState."
"""Start of tags of an experiment; each holds a view that MLflow's UI opens by its key."""

FIRST = "metrics.`test_psnr`"
"""Column by which the runs of a study are sorted."""

COLUMNS = (
    *(f"tags.`{tag}`" for tag in (CASE, SEED)),
    FIRST,
    *(f"metrics.`test_{metric}`" for metric in ("sam", "ergas", "ssim")),
    "metrics.`train_seconds`",
)
"""Columns of the runs of a study, in the spelling of MLflow's UI."""

LONGEST_NOTE = 8000
"""Characters that MLflow takes as a description."""


def find_study(store: Store, study: str) -> str | None:
    """Return the id of a study's parent run, None if the study was never run.

    The oldest counts if two labs have created one each.
    """
    with explained(store.uri):
        runs = find_runs(store, {KIND: "study", STUDY: study})
    return runs[-1].info.run_id if runs else None


def study_run(store: Store, study: str, text: str, note: str = "") -> str:
    """Return the id of a study's parent run, created if missing, with the study file attached."""
    run_id = find_study(store, study)
    with explained(store.uri):
        if run_id is None:
            tags = {KIND: "study", STUDY: study, **context_tags()}
            run = store.client.create_run(store.experiment_id, run_name=f"study {study}", tags=tags)
            run_id = run.info.run_id
        store.client.set_tag(run_id, NOTE, note[:LONGEST_NOTE])
        key, view = _view(study)
        for tag, value in {**EXPERIMENT_TAGS, VIEW + key: view}.items():
            store.client.set_experiment_tag(store.experiment_id, tag, value)
        store.client.log_text(run_id, text, "study.yaml")
        for run in orphans(store, study):
            store.client.set_tag(run.info.run_id, PARENT, run_id)
    return run_id


def orphans(store: Store, study: str) -> list[Run]:
    """Return a study's trials whose parent was deleted."""
    with explained(store.uri):
        parents = {run.info.run_id for run in find_runs(store, {KIND: "study"})}
        trials = find_runs(store, {KIND: "trial", STUDY: study})
    return [run for run in trials if run.data.tags.get(PARENT) not in parents]


def context_tags() -> dict[str, str]:
    """Return MLflow's own tags for the user and the program that write a run."""
    source = {"mlflow.source.name": "mhiflab", "mlflow.source.type": "LOCAL"}
    return {"mlflow.user": getpass.getuser(), **source}


def _filter(study: str) -> str:
    return tag_filter({KIND: "trial", STUDY: study})


def _view(study: str) -> tuple[str, str]:
    """Return the key and the content of a study's view in MLflow's UI."""
    content = {
        "searchFilter": _filter(study),
        "orderByKey": FIRST,
        "orderByAsc": False,
        "selectedColumns": COLUMNS,
        "columnOrder": COLUMNS,
        "groupBy": {
            "aggregateFunction": "average",
            "groupByKeys": [{"mode": "tag", "groupByData": CASE}],
        },
    }
    return f"mhiflab-{hashlib.sha256(study.encode()).hexdigest()[:16]}", json.dumps(content)


def experiment_address(store: Store, server: str, **query: str) -> str:
    """Return the address at which MLflow's UI shows the runs, as those of trainings."""
    words = urlencode({**query, "workflowType": "machine_learning"})
    return f"{server.rstrip('/')}/#/experiments/{store.experiment_id}/runs?{words}"


def study_address(store: Store, study: str, server: str) -> str:
    """Return the address at which MLflow's UI shows a study's trials, grouped by case."""
    key, _ = _view(study)
    with explained(store.uri):
        tags = store.client.get_experiment(store.experiment_id).tags
    query = {"searchFilter": _filter(study), "orderByKey": FIRST, "orderByAsc": "false"}
    if VIEW + key in tags:
        query = {"viewStateShareKey": key}
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
        store.client.set_tag(run_id, NOTE, note[:LONGEST_NOTE])
        store.client.log_batch(run_id, metrics)
