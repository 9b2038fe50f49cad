"""The MLflow store: where it is, what is in it, and why it cannot be used.

One parent run per study, one child run per run key, all found by tags. `writer.py` writes runs. A
lab that was moved or copied takes its artifacts along.
"""

import getpass
import os
import re
import shutil
import sqlite3
import tempfile
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
from mhiflab.record.lab_lock import driver_at_work

EXPERIMENT = "mhiflab"

KIND, STUDY, KEY = "mhiflab.kind", "mhiflab.study", "mhiflab.run_key"

CASE, SEED = "mhiflab.case", "mhiflab.seed"

FINGERPRINT, SPEC_HASH = "mhiflab.data_fingerprint", "mhiflab.spec_hash"

ERROR_TAG, REFUSED_TAG = "mhiflab.error", "mhiflab.refused"

NOTE = "mlflow.note.content"
"""MLflow's tag for a run's description, in Markdown."""

TESTED_TAG = "mhiflab.tested"
"""`false` on a finished run whose test scenes are still unopened."""

SEARCH_TAG, STOPPED_TAG = "mhiflab.search", "mhiflab.stopped_epoch"
"""`mhiflab.search.<hash>.<index>`: the values of a search's suggestion; where it was ended."""

ARCHIVED_TAG = "mhiflab.archived"
"""`true` on a run that was brought in from an archive."""

IMAGES_FILE, BANDS_FILE = "metrics_test.csv", "metrics_bands.csv"

QUICKLOOK_FILE, ERROR_FILE = "quicklook.npz", "error.txt"

ROBUSTNESS_FILE, ROBUSTNESS_PICTURE = "robustness.csv", "robustness.png"

REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_ALREADY_EXISTS"}
"""MLflow's codes for what a store will never take, such as a parameter that changes."""

REFUSED_STATUS = {400, 413, 414, 422, 431}

DENIED = {"UNAUTHENTICATED", "PERMISSION_DENIED", "CUSTOMER_UNAUTHORIZED"}


def tracking_uri(lab: Lab) -> str:
    """Return `MLFLOW_TRACKING_URI`, or the SQLite file of the lab folder, with absolute paths.

    Asked in the driver only: workers have another environment and another working folder.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI")
    if not given:
        return f"sqlite:///{lab.database.resolve()}"
    relative = re.fullmatch(r"sqlite:///([^/].*)", given)
    return f"sqlite:///{Path(relative[1]).resolve()}" if relative else given


class NotArchivedError(UserError):
    """A run from an archive is asked for what archives do not hold."""


@dataclass(frozen=True)
class Store:
    """An opened MLflow store and the experiment that holds all runs."""

    client: MlflowClient
    uri: str
    experiment_id: str


def shown(uri: str) -> str:
    """Return a URI, or a text that holds one, with its passwords blotted out."""
    without = re.sub(r"(://[^:/@\s]*):\S*@", r"\1:***@", uri)
    return re.sub(r"(?i)([?&][^=&\s]*(?:password|token|secret)[^=&\s]*=)[^&\s]*", r"\1***", without)


def is_refusal(error: BaseException) -> bool:
    """Return whether a store answered that it will never take this."""
    if isinstance(error, MlflowException):
        return error.error_code in REFUSALS
    # Artifacts travel through requests, which carries the server's answer.
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in REFUSED_STATUS


def explain(uri: str, error: BaseException) -> str:
    """Return one sentence on why a store could not be used, and what to do; no passwords."""
    lines = shown(str(error).replace(uri, shown(uri))).strip().splitlines() or [""]
    reason = lines[0][:200] or type(error).__name__
    where = f"MLflow store {shown(uri)}"
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
    """Turn a store's failures into one `UserError` that tells an outage from a refusal."""
    try:
        yield
    except (MlflowException, OSError, SQLAlchemyError, ModuleNotFoundError) as error:
        raise UserError(explain(uri, error)) from None


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
    with explained(uri):
        return connect(lab, uri)


def connect(lab: Lab, uri: str) -> Store:
    """Open the store as `open_store` does, with MLflow's own errors."""
    local = uri == f"sqlite:///{lab.database.resolve()}"
    if local:
        lab.root.mkdir(parents=True, exist_ok=True)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    location = lab.artifacts.resolve().as_uri() if local else None
    if experiment is None:
        return Store(client, uri, client.create_experiment(EXPERIMENT, artifact_location=location))
    before = experiment.artifact_location
    if location and before.startswith("file:") and before != location and not driver_at_work(lab):
        move_artifacts(lab, before, location)
    return Store(client, uri, experiment.experiment_id)


def find_runs(store: Store, tags: Mapping[str, str]) -> list[Run]:
    """Return the runs with these tags, newest first."""
    return search_runs(store, " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items()))


def search_runs(store: Store, filters: str) -> list[Run]:
    """Return the runs that an MLflow filter finds, newest first."""
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
        return {run.data.tags[KEY]: run for run in find_runs(store, wanted)}


def find_study(store: Store, study: str) -> str | None:
    """Return the id of a study's parent run, None where it was never run.

    The oldest, should two labs have made one each.
    """
    with explained(store.uri):
        found = find_runs(store, {KIND: "study", STUDY: study})
    return found[-1].info.run_id if found else None


def study_run(store: Store, study: str, text: str, note: str = "") -> str:
    """Return the id of the study's parent run, made if missing; the study file is its artifact."""
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
    """Return who writes, as MLflow's own tags."""
    source = {"mlflow.source.name": "mhiflab", "mlflow.source.type": "LOCAL"}
    return {"mlflow.user": getpass.getuser(), **source}


def stop_run(store: Store, run_id: str, epoch: int) -> None:
    """Close the run of a trial that its search stopped after an epoch."""
    write_tag(store, run_id, STOPPED_TAG, str(epoch))
    close_interrupted(store, [run_id])


def go_on(store: Store, run: Run) -> None:
    """Let a run that its search stopped be trained to its end.

    For its driver to say: its worker, when it begins, cannot know that it was stopped meanwhile.
    """
    if STOPPED_TAG in run.data.tags:
        with explained(store.uri):
            store.client.delete_tag(run.info.run_id, STOPPED_TAG)


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
    """Yield a local copy of a run's artifact.

    Raises `UserError` where it is missing, `NotArchivedError` where archives never hold it.
    """
    folder = tempfile.mkdtemp(prefix="mhiflab-")
    try:
        try:
            path = store.client.download_artifacts(run_id, name, folder)
        except (MlflowException, OSError):
            # Missing only where the store answers.
            with explained(store.uri):
                tags = store.client.get_run(run_id).data.tags
            if ARCHIVED_TAG in tags and not has_artifact(store, run_id, name.split("/")[0]):
                raise NotArchivedError(
                    f"run {tags[KEY]}: artifact {name} is not in its archive, which holds numbers "
                    "alone; use the record that it was exported from"
                ) from None
            raise UserError(
                f"run {run_id}: artifact {name} is missing from MLflow store {shown(store.uri)}; "
                "delete the run and run the study again"
            ) from None
        yield Path(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_tag(store: Store, run_id: str, key: str) -> str:
    """Return a run's tag, empty where it has none."""
    with explained(store.uri):
        return store.client.get_run(run_id).data.tags.get(key, "")


def write_tag(store: Store, run_id: str, key: str, value: str) -> None:
    """Set a run's tag."""
    with explained(store.uri):
        store.client.set_tag(run_id, key, value)


def close_interrupted(store: Store, run_ids: Iterable[str]) -> None:
    """Mark runs that nobody works on any more; they continue when their study runs again."""
    with explained(store.uri):
        for run_id in run_ids:
            store.client.set_terminated(run_id, "KILLED")


MOVES = (
    "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, length(:old) + 1) "
    "WHERE substr(artifact_uri, 1, length(:old) + 1) = :old || '/'",
    "UPDATE experiments SET artifact_location = :new WHERE artifact_location = :old",
)


def move_artifacts(lab: Lab, before: str, location: str) -> None:
    """Let a lab's record name the artifacts beside it, at `location`, instead of those at `before`.

    MLflow keeps absolute places: a copy would read the artifacts of its original, and write there.
    Raises `UserError` where the database was copied alone.
    """
    original = Path(url2pathname(urlsplit(before).path))
    if original.is_dir() and not lab.artifacts.is_dir():
        raise UserError(
            f"{lab.database}: found a record whose artifacts lie in {original}, expected them in "
            f"{lab.artifacts}; copy the whole folder of the lab, or name the original with --lab"
        )
    with closing(sqlite3.connect(lab.database, timeout=60)) as database, database:
        for statement in MOVES:
            database.execute(statement, {"old": before, "new": location})
