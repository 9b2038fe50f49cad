"""The record: the only module that writes MLflow.

One parent run per study, one child run per run key. Everything is found by tags, and metric
timestamps follow from a run's start and the step, so that writing twice changes nothing.
"""

import getpass
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from feinfn.errors import UserError
from mhiflab.paths import Lab

EXPERIMENT = "mhiflab"
KIND, STUDY, KEY = "mhiflab.kind", "mhiflab.study", "mhiflab.run_key"
ERROR_TAG = "mhiflab.error"
TESTED_TAG = "mhiflab.tested"
"""`false` on a finished run whose test scenes are still unopened."""
SEARCH_TAG, STOPPED_TAG = "mhiflab.search", "mhiflab.stopped_epoch"
"""`mhiflab.search.<hash>.<index>`: the values of a search's suggestion; where it was ended."""
IMAGES_FILE, BANDS_FILE = "metrics_test.csv", "metrics_bands.csv"
QUICKLOOK_FILE, ERROR_FILE = "quicklook.npz", "error.txt"
ROBUSTNESS_FILE, ROBUSTNESS_PICTURE = "robustness.csv", "robustness.png"


NOT_IDENTITY = {
    "data.source",
    *(f"protocol.{text}" for text in ("name", "about", "known", "inferred", "source", "srf")),
}
"""Settings outside a run's identity: they may change when it continues, MLflow's params may not."""


def tracking_uri(lab: Lab) -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite file of the lab folder, with absolute paths.

    Asked in the driver only: workers have another environment and another working folder.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        return f"sqlite:///{lab.database.resolve()}"
    relative = re.fullmatch(r"sqlite:///([^/].*)", given)
    return f"sqlite:///{Path(relative[1]).resolve()}" if relative else given


@dataclass(frozen=True)
class Store:
    """An opened MLflow store and the experiment that holds all runs."""

    client: MlflowClient
    uri: str
    experiment_id: str


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn MLflow's failures to reach or write a store into one `UserError`."""
    try:
        yield
    except (MlflowException, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"MLflow store {uri}: cannot be reached or written ({reason}); check "
            "MLFLOW_TRACKING_URI and that the server runs, or unset it to use a local file"
        ) from None


def existing_store(lab: Lab) -> Store | None:
    """Open the store if there is a record at all; a server is always asked."""
    if os.environ.get("MLFLOW_TRACKING_URI") or lab.database.exists():
        return open_store(lab, tracking_uri(lab))
    return None


def recorded_store(lab: Lab) -> Store:
    """Open the store, or raise `UserError` where there is no record."""
    store = existing_store(lab)
    if store is None:
        raise UserError(f"{lab.database}: no record yet; run the study first, or name its --lab")
    return store


def open_store(lab: Lab, uri: str) -> Store:
    """Open the store at a URI and its experiment, made if missing.

    One process must do so before others join: MLflow sets a new database up without a lock.
    """
    local = uri == f"sqlite:///{lab.database.resolve()}"
    with explained(uri):
        if local:
            lab.root.mkdir(parents=True, exist_ok=True)
        client = MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is not None:
            return Store(client, uri, experiment.experiment_id)
        location = lab.artifacts.resolve().as_uri() if local else None
        return Store(client, uri, client.create_experiment(EXPERIMENT, artifact_location=location))


def _find(store: Store, tags: Mapping[str, str]) -> list[Run]:
    filters = " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items())
    runs: list[Run] = []
    token = None
    while True:
        page = store.client.search_runs(
            [store.experiment_id], filters, max_results=1000, page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


def trial_runs(store: Store, key: str | None = None) -> dict[str, Run]:
    """Return the run of every recorded run key, or of one."""
    wanted = {KIND: "trial"} if key is None else {KIND: "trial", KEY: key}
    with explained(store.uri):
        return {run.data.tags[KEY]: run for run in _find(store, wanted)}


def study_run(store: Store, study: str, text: str) -> str:
    """Return the id of the study's parent run, made if missing; the study file is its artifact."""
    with explained(store.uri):
        found = _find(store, {KIND: "study", STUDY: study})
        if found:
            run_id = found[0].info.run_id
        else:
            tags = {KIND: "study", STUDY: study, **_context_tags()}
            run = store.client.create_run(store.experiment_id, run_name=f"study {study}", tags=tags)
            run_id = run.info.run_id
        store.client.log_text(run_id, text, "study.yaml")
    return run_id


def finish_study(store: Store, run_id: str, complete: bool) -> None:
    """Close a study's parent run."""
    with explained(store.uri):
        store.client.set_terminated(run_id, "FINISHED" if complete else "FAILED")


def _context_tags() -> dict[str, str]:
    source = {"mlflow.source.name": "mhiflab", "mlflow.source.type": "LOCAL"}
    return {"mlflow.user": getpass.getuser(), **source}


class TrialRecord:
    """The MLflow run of one trial, found by its run key or made; written by one process only."""

    def __init__(
        self, store: Store, key: str, name: str, parent: str, tags: dict[str, str]
    ) -> None:
        self.store, self.client = store, store.client
        with explained(store.uri):
            found = _find(store, {KIND: "trial", KEY: key})
            if found:
                run = found[0]
                self.client.update_run(run.info.run_id, status="RUNNING")
                for tag in {ERROR_TAG, STOPPED_TAG} & run.data.tags.keys():
                    self.client.delete_tag(run.info.run_id, tag)
            else:
                own = {KIND: "trial", KEY: key, "mlflow.parentRunId": parent}
                run = self.client.create_run(
                    store.experiment_id, run_name=name, tags={**own, **tags, **_context_tags()}
                )
        self.run_id, self.started_ms = run.info.run_id, run.info.start_time

    def settings(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Record the resolved spec as parameters and further tags."""
        with explained(self.store.uri):
            self.client.log_batch(
                self.run_id,
                params=[Param(k, str(v)) for k, v in params.items() if k not in NOT_IDENTITY],
                tags=[RunTag(k, v) for k, v in tags.items()],
            )

    def metrics(self, step: int, values: Mapping[str, float]) -> None:
        """Record one step's metrics in one batch; repeating a step is harmless."""
        when = self.started_ms + step
        with explained(self.store.uri):
            self.client.log_batch(
                self.run_id, metrics=[Metric(k, v, when, step) for k, v in values.items()]
            )

    def artifact(self, path: Path, folder: str = "") -> None:
        """Store one file."""
        with explained(self.store.uri):
            self.client.log_artifact(self.run_id, str(path), folder or None)

    def text(self, text: str, name: str) -> None:
        """Store one text file."""
        with explained(self.store.uri):
            self.client.log_text(self.run_id, text, name)

    def json(self, value: Any, name: str) -> None:
        """Store one JSON file."""
        self.text(json.dumps(value, indent=2, sort_keys=True) + "\n", name)

    def finish(self) -> None:
        """Close the run as done."""
        with explained(self.store.uri):
            self.client.set_terminated(self.run_id, "FINISHED")

    def fail(self, message: str, traceback: str) -> None:
        """Close the run as failed, with its reason as a tag and the traceback as an artifact."""
        self.text(traceback, ERROR_FILE)
        with explained(self.store.uri):
            self.client.set_tag(self.run_id, ERROR_TAG, message[:4000])
            self.client.set_terminated(self.run_id, "FAILED")


def tag_run(store: Store, run_id: str, tag: str, text: str) -> None:
    """Set one tag of a run."""
    with explained(store.uri):
        store.client.set_tag(run_id, tag, text)


def stop_run(store: Store, run_id: str, epoch: int) -> None:
    """Close the run of a trial that its search stopped after an epoch."""
    tag_run(store, run_id, STOPPED_TAG, str(epoch))
    with explained(store.uri):
        store.client.set_terminated(run_id, "KILLED")


def has_artifact(store: Store, run_id: str, name: str) -> bool:
    """Return whether a run has an artifact of this name at its top."""
    with explained(store.uri):
        return any(item.path == name for item in store.client.list_artifacts(run_id))


def add_artifact(store: Store, run_id: str, path: Path) -> None:
    """Store one more file with a finished run."""
    with explained(store.uri):
        store.client.log_artifact(run_id, str(path))


def metric_history(store: Store, run_id: str, names: Iterable[str]) -> dict[str, dict[int, float]]:
    """Return the recorded values of some metrics of a run by step."""
    with explained(store.uri):
        return {
            name: {m.step: m.value for m in store.client.get_metric_history(run_id, name)}
            for name in names
        }


@contextmanager
def artifact_file(store: Store, run_id: str, name: str) -> Iterator[Path]:
    """Yield a local copy of a run's artifact; raise `UserError` where it is missing."""
    folder = tempfile.mkdtemp(prefix="mhiflab-")
    try:
        try:
            path = store.client.download_artifacts(run_id, name, folder)
        except (MlflowException, OSError):
            raise UserError(
                f"run {run_id}: artifact {name} is missing from MLflow store {store.uri}; delete "
                "the run and run the study again"
            ) from None
        yield Path(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
