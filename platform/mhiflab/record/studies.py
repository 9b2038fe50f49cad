"""Runs of studies: the parent that holds a study's trials in MLflow."""

import getpass

from mlflow.entities import Run

from mhiflab.record.database.errors import explained
from mhiflab.record.store import KIND, NOTE, STUDY, Store, find_runs

PARENT = "mlflow.parentRunId"
"""Tag of a run: the one that MLflow's UI shows it under."""


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
        store.client.set_tag(run_id, NOTE, note)
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
