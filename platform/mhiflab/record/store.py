"""MLflow store: open it, find runs in it, and explain its errors.

It holds one parent run per study and one child run per run key, all found by tags.
"""

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Experiment, Run, ViewType
from mlflow.exceptions import MlflowException

from feinfn.errors import UserError
from mhiflab.exclusion import driver_lock
from mhiflab.paths import Lab, path_of
from mhiflab.record import tag
from mhiflab.record.database.condition import condition, database_file, has_record
from mhiflab.record.database.errors import explained, without_passwords
from mhiflab.record.database.making import make, migrate, move
from mhiflab.record.database.reading import reading_client

EXPERIMENT = "mhiflab"
"""MLflow experiment that holds all runs."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""Tags of a new experiment: MLflow's UI opens it as one of training runs."""


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


def existing_store(lab: Lab) -> Store | None:
    """Open the lab's store for reading, which writes nothing to a database; None without a record.

    Raise `UserError` if the record is damaged, half made, of another MLflow, or was deleted.
    """
    uri = tracking_uri(lab)
    with explained(uri):
        remedy = "`mhiflab run` or `mhiflab doctor --migrate` migrates it and keeps a backup"
        if not has_record(uri, remedy):
            return None
        path = database_file(uri)
        client = reading_client(path) if path else MlflowClient(tracking_uri=uri)
        experiment = _find_experiment(client, uri)
        if experiment is None:
            return None
        if path and (moved := _moved(lab, uri, experiment)):
            client = reading_client(path, moved)
        return Store(client, uri, experiment.experiment_id)


def recorded_store(lab: Lab) -> Store:
    """Open the lab's store for reading; raise `UserError` if there is no record."""
    store = existing_store(lab)
    if store is None:
        where = without_passwords(tracking_uri(lab)).removeprefix("sqlite:///")
        raise UserError(f"{where}: no record yet; run the study first, or name its --lab")
    return store


def open_store(lab: Lab, uri: str) -> Store:
    """Open the store at a URI; make it and its experiment if they are missing."""
    with explained(uri):
        return connect(lab, uri)


def connect(lab: Lab, uri: str) -> Store:
    """Open the store as `open_store` does, but raise MLflow's own errors; follow a moved lab."""
    location, path = _location(lab, uri), database_file(uri)
    remedy = "migrate it with `mhiflab doctor --migrate`, which keeps a backup"
    if not has_record(uri, remedy) and path:
        make(path, EXPERIMENT, location, EXPERIMENT_TAGS)
    client = MlflowClient(tracking_uri=uri)
    experiment = _find_experiment(client, uri)
    if experiment is None:
        try:
            made = client.create_experiment(EXPERIMENT, location, EXPERIMENT_TAGS)
            experiment = client.get_experiment(made)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            # Another process has created it meanwhile, unless the server hides it.
            experiment = client.get_experiment_by_name(EXPERIMENT)
            if experiment is None:
                raise
    moved = _moved(lab, uri, experiment)
    if path and moved and not driver_lock(lab).holder():
        move(path, *moved)
    return Store(client, uri, experiment.experiment_id)


def migrate_record(lab: Lab) -> str:
    """Migrate the lab's record if an older MLflow made it; return in words what was done.

    The record of a moved lab names the artifacts beside it from then on, for other programs too.
    A record on a server is left to whoever keeps it.
    """
    path = database_file(tracking_uri(lab))
    backup = migrate(path) if path and condition(path) == "older" else None
    if path and condition(path) == "current":
        open_store(lab, tracking_uri(lab))
    if backup is None:
        return ""
    return f"{path}: migrated to the schema of this MLflow; as it was, it is kept in {backup.name}"


def _location(lab: Lab, uri: str) -> str | None:
    """Return the place of new artifacts if the store is the lab's own database."""
    own = uri == f"sqlite:///{lab.database.resolve()}"
    return lab.artifacts.resolve().as_uri() if own else None


def _moved(lab: Lab, uri: str, experiment: Experiment) -> tuple[str, str] | None:
    """Return the earlier and the present place of a lab's artifacts if its record tells another.

    MLflow keeps absolute paths, so a copied lab would read and write its original's artifacts.
    Raise `UserError` if the database was copied alone.
    """
    before, location = experiment.artifact_location, _location(lab, uri)
    original = path_of(before) if before.startswith("file:") else None
    if location is None or location == before or original is None:
        return None
    if original.is_dir() and not lab.artifacts.is_dir():
        raise UserError(
            f"{lab.database}: found a record whose artifacts lie in {original}, expected them in "
            f"{lab.artifacts}; copy the whole folder of the lab, or name the original with --lab"
        )
    return before, location


def _find_experiment(client: MlflowClient, uri: str) -> Experiment | None:
    """Return the experiment that holds all runs, by whatever name; None if there is none.

    Raise `UserError` if it was deleted.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        # Somebody may have given it another name.
        ids = [one.experiment_id for one in client.search_experiments(ViewType.ALL)]
        studies = tag_filter({tag.KIND: "study"})
        runs = client.search_runs(ids, studies, ViewType.ALL, 1) if ids else []
        experiment = client.get_experiment(runs[0].info.experiment_id) if runs else None
    if experiment and experiment.lifecycle_stage == "deleted":
        where, found = without_passwords(uri), experiment.experiment_id
        raise UserError(
            f"MLflow store {where}: found experiment {experiment.name} deleted, with all runs; "
            f"restore it: MLFLOW_TRACKING_URI={where} mlflow experiments restore "
            f"--experiment-id {found}; or begin another record with --lab or MLFLOW_TRACKING_URI "
            "(mlflow gc frees the name, and removes its runs, weights and pictures for good)"
        )
    return experiment


def search_runs(store: Store, filters: str, stage: int = ViewType.ACTIVE_ONLY) -> list[Run]:
    """Return the runs that match an MLflow filter, newest first; raise MLflow's own errors."""
    runs: list[Run] = []
    token: str | None = ""
    while token is not None:
        page = store.client.search_runs(
            [store.experiment_id], filters, stage, 1000, page_token=token or None
        )
        runs, token = runs + page, page.token or None
    return runs


def tag_filter(tags: Mapping[str, str]) -> str:
    """Return the MLflow filter of runs with these tags."""
    return " and ".join(f"tags.`{k}` = '{v}'" for k, v in tags.items())


def find_runs(
    store: Store, tags: Mapping[str, str], stage: int = ViewType.ACTIVE_ONLY
) -> list[Run]:
    """Return the runs with these tags, newest first."""
    with explained(store.uri):
        return search_runs(store, tag_filter(tags), stage)


def trial_runs(store: Store, key: str | None = None) -> dict[str, Run]:
    """Return the runs of trials by run key: all, or the one of a key."""
    tags = {tag.KIND: "trial"} if key is None else {tag.KIND: "trial", tag.KEY: key}
    return by_key(find_runs(store, tags))


def by_key(runs: Iterable[Run]) -> dict[str, Run]:
    """Return the runs of trials among some runs by run key."""
    trials = (run for run in runs if run.data.tags.get(tag.KIND) == "trial")
    return {run.data.tags[tag.KEY]: run for run in trials if tag.KEY in run.data.tags}


def stop_run(store: Store, run_id: str, epoch: int) -> None:
    """Close the run of a trial that its search stopped after an epoch."""
    write_tag(store, run_id, tag.STOPPED, str(epoch))
    close_interrupted(store, run_id)


def clear_stop(store: Store, run: Run) -> None:
    """Mark a run that its search stopped as one to train to its end.

    The driver must do so: the run's worker cannot know whether the search stops it meanwhile.
    """
    if tag.STOPPED in run.data.tags:
        with explained(store.uri):
            store.client.delete_tag(run.info.run_id, tag.STOPPED)


def read_tag(store: Store, run_id: str, key: str) -> str:
    """Return the value of a run's tag, empty if it has none."""
    with explained(store.uri):
        return store.client.get_run(run_id).data.tags.get(key, "")


def write_tag(store: Store, run_id: str, key: str, value: str) -> None:
    """Set a run's tag."""
    with explained(store.uri):
        store.client.set_tag(run_id, key, value)


def close_interrupted(store: Store, run_id: str) -> None:
    """Mark a run as interrupted; it continues when its study runs again."""
    with explained(store.uri):
        store.client.set_terminated(run_id, "KILLED")
