"""Upload of a journal's entries to MLflow; each entry may be applied any number of times.

A run is found by its tags, or created with the start time of its journal. A metric's timestamp is
that time plus its step, so the same entry always gives the same point.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from mhiflab.paths import Lab
from mhiflab.record.journal import FILES, Spool
from mhiflab.record.store import (
    ERROR_TAG,
    REFUSED_TAG,
    Store,
    connect,
    explain,
    find_runs,
    is_refusal,
)

GONE = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)
"""MLflow's code for a run that was deleted."""


class Applier:
    """Uploader of one spool, in order, from the entry where the last call stopped."""

    def __init__(self, spool: Spool, lab: Lab, uri: str, opens: bool = True) -> None:
        """Take a spool; `opens` is False if no process works on its run any more."""
        self.spool, self.lab, self.uri, self.opens = spool, lab, uri, opens
        self.ended = False
        """True if the journal's last entry, the run's end, was applied."""
        self._restart()

    def _restart(self) -> None:
        self.store: Store | None = None
        self.position, self.run_id, self.started_ms = 0, "", 0
        """`position` is the byte of the journal up to which entries were applied."""
        self.refusals: list[str] = []
        self.recorded_steps: dict[str, set[int]] = {}
        """Steps on record by metric; their values do not change."""
        self.created = False
        """True if this object created the run."""

    def advance(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Apply the entries that were not applied yet; raise any error of an unreachable store.

        An entry that the store refuses for good is noted in a tag of the run and left out. If the
        run was deleted meanwhile, the next call starts again with a new run.
        """
        for entry, end in zip(*self.spool.entries(self.position), strict=True):
            if stopped():
                return
            try:
                self._apply(entry)
            except MlflowException as error:
                if error.error_code == GONE:
                    self._restart()
                raise
            self.ended, self.position = entry["op"] == "end", end

    def _apply(self, entry: dict[str, Any]) -> None:
        write = partial(getattr(self, f"_{entry['op']}"), entry)
        # A run needs its start, and the store refuses a batch item by item.
        if entry["op"] in ("start", "batch"):
            write()
        else:
            self._refusable(entry["op"], write)

    def _refusable(self, name: str, write: Callable[[], object]) -> None:
        """Write, and note a refusal; try twice, because a stale connection may cause the first."""
        try:
            try:
                write()
            except (MlflowException, OSError) as error:
                if not is_refusal(error):
                    raise
                self._check_run()
                write()
        except (MlflowException, OSError) as error:
            if not is_refusal(error):
                raise
            self._note(f"{name}: {explain(self.uri, error)}")

    def _check_run(self) -> None:
        """Raise `MlflowException` if the run was deleted, which is no refusal of its entries."""
        if self.client.get_run(self.run_id).info.lifecycle_stage != "active":
            raise MlflowException(f"run {self.run_id} was deleted", RESOURCE_DOES_NOT_EXIST)

    @property
    def client(self) -> MlflowClient:
        assert self.store is not None, "every journal begins with a start"
        return self.store.client

    def _note(self, refusal: str) -> None:
        self.refusals.append(refusal)
        self.client.set_tag(self.run_id, REFUSED_TAG, "\n".join(self.refusals)[:4000])

    def _start(self, entry: dict[str, Any]) -> None:
        self.store = self.store or connect(self.lab, self.uri)
        client, runs = self.client, find_runs(self.store, entry["identity"])
        if runs:
            # The oldest, if two labs have created one each.
            run = runs[-1]
            if self.opens:
                client.update_run(run.info.run_id, status="RUNNING")
                if ERROR_TAG in run.data.tags:
                    client.delete_tag(run.info.run_id, ERROR_TAG)
        else:
            run = client.create_run(
                self.store.experiment_id,
                start_time=entry["ms"],
                tags={**entry["tags"], **entry["identity"]},
                run_name=entry["name"],
            )
            self.created = True
            if not self.opens:
                client.set_terminated(run.info.run_id, "KILLED")
        self.run_id, self.started_ms = run.info.run_id, run.info.start_time

    def _batch(self, entry: dict[str, Any]) -> None:
        step = entry.get("step", 0)
        metrics = [
            Metric(name, value, self.started_ms + step, step)
            for name, value in entry.get("metrics", {}).items()
            if step not in self._steps(name)
        ]
        params = [Param(k, v) for k, v in entry.get("params", {}).items()]
        tags = [RunTag(k, v) for k, v in entry.get("tags", {}).items()]
        self._log(metrics, params, tags)
        for metric in metrics:
            self._steps(metric.key).add(step)

    def _steps(self, name: str) -> set[int]:
        if name not in self.recorded_steps:
            history = [] if self.created else self.client.get_metric_history(self.run_id, name)
            self.recorded_steps[name] = {point.step for point in history}
        return self.recorded_steps[name]

    def _log(self, metrics: list[Metric], params: list[Param], tags: list[RunTag]) -> None:
        """Write all items at once, or one by one if the store refuses some of them."""
        items = [*metrics, *params, *tags]
        try:
            if items:
                self.client.log_batch(self.run_id, metrics, params, tags)
        except MlflowException as error:
            if not is_refusal(error):
                raise
            self._check_run()
            for item in items:
                alone = [[item] if item in group else [] for group in (metrics, params, tags)]
                self._refusable(item.key, partial(self.client.log_batch, self.run_id, *alone))

    def _file(self, entry: dict[str, Any]) -> None:
        path = self.spool.folder / FILES / entry["file"]
        if path.is_file():
            self.client.log_artifact(self.run_id, str(path), entry["folder"] or None)
        else:
            self._note(f"{path}: this file was deleted before it reached the store")

    def _inputs(self, entry: dict[str, Any]) -> None:
        inputs = [
            DatasetInput(Dataset(**fields), [InputTag("mlflow.data.context", context)])
            for context, fields in entry["datasets"].items()
        ]
        self.client.log_inputs(self.run_id, inputs)

    def _end(self, entry: dict[str, Any]) -> None:
        self.client.set_terminated(self.run_id, entry["status"], entry["ms"])
