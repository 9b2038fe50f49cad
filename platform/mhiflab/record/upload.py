"""Upload of a run's parts to MLflow; each part may be applied any number of times.

A run is found by its tags, or created with the start time of its first part. A metric's timestamp
is that time plus its step, so the same part always gives the same points.
"""

from collections.abc import Callable, Mapping
from functools import partial

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

from mhiflab.record import tag
from mhiflab.record.database.errors import explain, is_refusal
from mhiflab.record.run_folder import FILES, Part, RunFolder
from mhiflab.record.store import Store, search_runs, tag_filter

GONE = ErrorCode.Name(RESOURCE_DOES_NOT_EXIST)
"""MLflow's code for a run that was deleted."""

BATCH = 1000
"""Most metrics that MLflow takes at once."""


class Upload:
    """Upload of one run: of a folder, from the part where the last call stopped, or of parts."""

    def __init__(
        self, connect: Callable[[], Store], folder: RunFolder | None = None, opens: bool = True
    ) -> None:
        """Take a run's folder; `opens` is False if no process works on its run any more."""
        self.connect, self.folder, self.opens = connect, folder, opens
        self.ended = False
        """True if the last part, the run's end, was applied."""
        self._restart()

    def _restart(self) -> None:
        self.store: Store | None = None
        self.position, self.run_id, self.started_ms = 0, "", 0
        """`position` is the byte of the journal up to which parts were applied."""
        self.refusals: list[str] = []
        self.recorded_steps: dict[str, set[int]] = {}
        """Steps on record by metric; their values do not change."""
        self.created = False
        """True if this object created the run."""

    def advance(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Apply the folder's parts that were not applied yet; raise what an unreachable store does.

        If the run was deleted meanwhile, the next call starts again with a new run.
        """
        assert self.folder is not None, "an upload of single parts has no folder"
        for part, end in self.folder.parts(self.position):
            if stopped():
                return
            try:
                self.apply(part)
            except MlflowException as error:
                if error.error_code == GONE:
                    self._restart()
                raise
            self.position = end

    def apply(self, part: Part) -> None:
        """Apply one part; what the store refuses for good is noted in a tag and left out."""
        if part.name is not None:
            self._open_run(part, part.name)
        client = self.client
        self._log_batch(part)
        if part.datasets:
            self._refusable("datasets", partial(self._log_datasets, part.datasets))
        for name, text in part.files.items():
            self._refusable(name, partial(client.log_text, self.run_id, text, name))
        for name, place in part.copies.items():
            self._refusable(name, partial(self._log_copy, name, place))
        if part.status:
            end = partial(client.set_terminated, self.run_id, part.status, part.ended_ms)
            self._refusable("end", end)
        self.ended = bool(part.status)

    def _open_run(self, part: Part, name: str) -> None:
        """Find the run by the tags that identify it, or create it."""
        self.store = self.store or self.connect()
        client = self.store.client
        identity = (tag.KIND, tag.KEY) if tag.KEY in part.tags else (tag.KIND, tag.STUDY)
        if runs := search_runs(self.store, tag_filter({k: part.tags[k] for k in identity})):
            # The oldest, if two labs have created one each.
            run = runs[-1]
            if self.opens:
                client.update_run(run.info.run_id, status="RUNNING")
                if tag.ERROR in run.data.tags:
                    client.delete_tag(run.info.run_id, tag.ERROR)
        else:
            experiment, started = self.store.experiment_id, part.started_ms
            run = client.create_run(experiment, start_time=started, tags=part.tags, run_name=name)
            self.created = True
            if not self.opens:
                client.set_terminated(run.info.run_id, "KILLED")
        self.run_id, self.started_ms = run.info.run_id, run.info.start_time

    def _log_batch(self, part: Part) -> None:
        metrics = [
            Metric(name, value, self.started_ms + step, step)
            for name, points in part.metrics.items()
            for step, value in points
            if step not in self._steps(name)
        ]
        params = [Param(*item) for item in part.params.items()]
        # A new run has its tags already, and an earlier one keeps them.
        tags = [RunTag(*item) for item in part.tags.items()] if part.name is None else []
        self._log([], params, tags)
        for first in range(0, len(metrics), BATCH):
            self._log(metrics[first : first + BATCH], [], [])
        for metric in metrics:
            self._steps(metric.key).add(metric.step)

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
            self._note(f"{name}: {explain(self.store.uri if self.store else '', error)}")

    def _note(self, refusal: str) -> None:
        self.refusals.append(refusal)
        self.client.set_tag(self.run_id, tag.REFUSED, "\n".join(self.refusals)[:4000])

    def _check_run(self) -> None:
        """Raise `MlflowException` if the run was deleted, which is no refusal of its entries."""
        if self.client.get_run(self.run_id).info.lifecycle_stage != "active":
            raise MlflowException(f"run {self.run_id} was deleted", RESOURCE_DOES_NOT_EXIST)

    def _log_datasets(self, datasets: Mapping[str, Mapping[str, str]]) -> None:
        inputs = [
            DatasetInput(Dataset(**fields), [InputTag("mlflow.data.context", context)])
            for context, fields in datasets.items()
        ]
        self.client.log_inputs(self.run_id, inputs)

    def _log_copy(self, artifact: str, place: str) -> None:
        assert self.folder is not None, "only folders hold copies"
        path = self.folder.folder / FILES / place
        if path.is_file():
            self.client.log_artifact(self.run_id, str(path), artifact.rpartition("/")[0] or None)
        else:
            self._note(f"{path}: this file was deleted before it reached the store")

    @property
    def client(self) -> MlflowClient:
        assert self.store is not None, "the first part opens the run"
        return self.store.client
