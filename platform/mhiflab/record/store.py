"""MLflow store: open it, find runs in it, and explain its errors.

It holds one parent run per study and one child run per run key, all found by tags.
"""

import getpass
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.record.exclusion import driver_lock

EXPERIMENT = "mhiflab"
"""MLflow experiment that holds all runs."""

KIND, STUDY, KEY = "mhiflab.kind", "mhiflab.study", "mhiflab.run_key"
CASE, SEED = "mhiflab.case", "mhiflab.seed"
FINGERPRINT, SPEC_HASH = "mhiflab.data_fingerprint", "mhiflab.spec_hash"
ERROR_TAG, REFUSED_TAG = "mhiflab.error", "mhiflab.refused"
"""Tags of runs."""

NOTE, TESTED_TAG, ARCHIVED_TAG = "mlflow.note.content", "mhiflab.tested", "mhiflab.archived"
"""Tags of a run: its description in Markdown; `false` if it is finished but was not tested yet;
`true` if it was imported from an archive."""

SEARCH_TAG, STOPPED_TAG = "mhiflab.search", "mhiflab.stopped_epoch"
"""Tags of a search's run: `mhiflab.search.<hash>.<index>` holds a suggestion's values; the other
one holds the epoch after which the search stopped it."""

IMAGES_FILE, BANDS_FILE = "metrics_test.csv", "metrics_bands.csv"
QUICKLOOK_FILE, ERROR_FILE = "quicklook.npz", "error.txt"
ROBUSTNESS_FILE, ROBUSTNESS_PICTURE = "robustness.csv", "robustness.png"
"""Artifacts of runs."""

REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
REFUSED_STATUS = {400, 413, 414, 422, 431}
"""MLflow's codes, and HTTP's, for requests that are never taken, such as a changed parameter."""

DENIED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"}
"""MLflow's codes for missing rights."""


def tracking_uri(lab: Lab) -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite file of the lab folder, with absolute paths.

    Call it in the driver only: workers have another environment and another working folder.
    """
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if not uri:
        return f"sqlite:///{lab.database.resolve()}"
    relative = re.fullmatch(r"sqlite:///([^/].*)", uri)
    return f"sqlite:///{Path(relative[1]).resolve()}" if relative else uri


@dataclass(frozen=True)
class Store:
    """Opened MLflow store, with the experiment that holds all runs."""

    client: MlflowClient
    uri: str
    experiment_id: str


def without_passwords(text: str) -> str:
    """Return a URI, or a text that holds one, with `***` in place of passwords."""
    text = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&][^=&\s]*(?:password|token|secret)[^=&\s]*=)[^&\s]*", r"\1***", text)


def is_refusal(error: BaseException) -> bool:
    """Return True if a store answered that it will never take a request."""
    if isinstance(error, MlflowException):
        return error.error_code in REFUSALS
    # Artifacts are sent with `requests`, whose errors hold the server's response.
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in REFUSED_STATUS


def explain(uri: str, error: BaseException) -> str:
    """Return one sentence: why a store failed, and what to do; without passwords."""
    safe_uri = without_passwords(uri)
    lines = without_passwords(str(error).replace(uri, safe_uri)).strip().splitlines() or [""]
    reason = lines[0][:200] or type(error).__name__
    where = f"MLflow store {safe_uri}"
    if isinstance(error, ModuleNotFoundError):
        return f"{where}: {reason}; for PostgreSQL: pip install 'mhiflab[postgres]'"
    if is_refusal(error):
        return f"{where}: refused what was asked of it ({reason})"
    status = getattr(getattr(error, "response", None), "status_code", None)
    code = getattr(error, "error_code", "")
    if code in DENIED or status in (401, 403):
        return (
            f"{where}: denied access ({reason}); set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
        )
    if code == "RESOURCE_DOES_NOT_EXIST":
        return f"{where}: what was asked for does not exist there ({reason})"
    return (
        f"{where}: cannot be reached or written ({reason}); check MLFLOW_TRACKING_URI and that "
        "the server runs and has disk space, or unset it to use a local file"
    )


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Turn a store's errors into one `UserError`, which tells an outage from a refusal."""
    try:
        yield
    except (MlflowException, OSError, SQLAlchemyError, ModuleNotFoundError) as error:
        raise UserError(explain(uri, error)) from None


def existing_store(lab: Lab) -> Store | None:
    """Open the lab's store, or return None without a record; a server is always opened."""
    if os.environ.get("MLFLOW_TRACKING_URI") or lab.database.exists():
        return open_store(lab, tracking_uri(lab))
    return None


def recorded_store(lab: Lab) -> Store:
    """Open the lab's store; raise `UserError` if there is no record."""
    store = existing_store(lab)
    if store is None:
        raise UserError(f"{lab.database}: no record yet; run the study first, or name its --lab")
    return store


def open_store(lab: Lab, uri: str) -> Store:
    """Open the store at a URI; create its experiment if it is missing.

    One process must do so before others join: MLflow sets up a new database without a lock.
    """
    with explained(uri):
        return connect(lab, uri)


def connect(lab: Lab, uri: str) -> Store:
    """Open the store as `open_store` does, but raise MLflow's own errors; follow a moved lab."""
    location = None
    if uri == f"sqlite:///{lab.database.resolve()}":
        lab.root.mkdir(parents=True, exist_ok=True)
        location = lab.artifacts.resolve().as_uri()
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return Store(client, uri, client.create_experiment(EXPERIMENT, artifact_location=location))
    if location and not driver_lock(lab).holder():
        move_artifacts(lab, experiment.artifact_location, location)
    return Store(client, uri, experiment.experiment_id)


def find_runs(store: Store, tags: Mapping[str, str]) -> list[Run]:
    """Return the runs with these tags, newest first."""
    return search_runs(store, " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items()))


def search_runs(store: Store, filters: str) -> list[Run]:
    """Return the runs that match an MLflow filter, newest first."""
    runs: list[Run] = []
    token: str | None = ""
    while token is not None:
        page = store.client.search_runs(
            [store.experiment_id], filters, max_results=1000, page_token=token or None
        )
        runs, token = runs + page, page.token or None
    return runs


def trial_runs(store: Store, key: str | None = None) -> dict[str, Run]:
    """Return the runs of trials by run key: all, or the one of a key."""
    tags = {KIND: "trial"} if key is None else {KIND: "trial", KEY: key}
    with explained(store.uri):
        return {run.data.tags[KEY]: run for run in find_runs(store, tags)}


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
    return run_id


def context_tags() -> dict[str, str]:
    """Return MLflow's own tags for the user and the program that write a run."""
    source = {"mlflow.source.name": "mhiflab", "mlflow.source.type": "LOCAL"}
    return {"mlflow.user": getpass.getuser(), **source}


def stop_run(store: Store, run_id: str, epoch: int) -> None:
    """Close the run of a trial that its search stopped after an epoch."""
    write_tag(store, run_id, STOPPED_TAG, str(epoch))
    close_interrupted(store, [run_id])


def clear_stop(store: Store, run: Run) -> None:
    """Mark a run that its search stopped as one to train to its end.

    The driver must do so: the run's worker cannot know whether the search stops it meanwhile.
    """
    if STOPPED_TAG in run.data.tags:
        with explained(store.uri):
            store.client.delete_tag(run.info.run_id, STOPPED_TAG)


def metric_history(store: Store, run_id: str, names: Iterable[str]) -> dict[str, dict[int, float]]:
    """Return a run's values by step, for each of some metrics."""
    with explained(store.uri):
        return {
            name: {m.step: m.value for m in store.client.get_metric_history(run_id, name)}
            for name in names
        }


def read_tag(store: Store, run_id: str, key: str) -> str:
    """Return the value of a run's tag, empty if it has none."""
    with explained(store.uri):
        return store.client.get_run(run_id).data.tags.get(key, "")


def write_tag(store: Store, run_id: str, key: str, value: str) -> None:
    """Set a run's tag."""
    with explained(store.uri):
        store.client.set_tag(run_id, key, value)


def close_interrupted(store: Store, run_ids: Iterable[str]) -> None:
    """Mark runs as interrupted; they continue when their study runs again."""
    with explained(store.uri):
        for run_id in run_ids:
            store.client.set_terminated(run_id, "KILLED")


MOVES = (
    "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, length(:old) + 1) "
    "WHERE substr(artifact_uri, 1, length(:old) + 1) = :old || '/'",
    "UPDATE experiments SET artifact_location = :new WHERE artifact_location = :old",
)
"""SQL statements that replace the place of artifacts in MLflow's database."""


def move_artifacts(lab: Lab, before: str, location: str) -> None:
    """Point a moved lab's record to the artifacts beside it, from the URI `before` to `location`.

    MLflow keeps absolute paths, so a copied lab would read and write its original's artifacts.
    Raise `UserError` if the database was copied alone.
    """
    if before == location or not before.startswith("file:"):
        return
    original = Path(url2pathname(urlsplit(before).path))
    if original.is_dir() and not lab.artifacts.is_dir():
        raise UserError(
            f"{lab.database}: found a record whose artifacts lie in {original}, expected them in "
            f"{lab.artifacts}; copy the whole folder of the lab, or name the original with --lab"
        )
    with closing(sqlite3.connect(lab.database, timeout=60)) as database, database:
        for statement in MOVES:
            database.execute(statement, {"old": before, "new": location})
