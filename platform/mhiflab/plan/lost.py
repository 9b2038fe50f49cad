"""Lost runs: finished work that its record no longer shows, so that nobody repeats it unawares.

Somebody deleted a run in MLflow, changed its tags, or put an earlier database in place.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from mlflow.entities import Run, ViewType

from mhiflab.paths import path_of
from mhiflab.record import tag
from mhiflab.record.artifacts import IMAGES_FILE
from mhiflab.record.database.errors import explained, without_passwords
from mhiflab.record.finished import RecordedRun
from mhiflab.record.store import Store, find_runs
from mhiflab.study.identity import digest, spec_hash
from mhiflab.study.spec import Spec

REPEAT = "train it again with `mhiflab run --repeat-lost`"


class LostRuns:
    """The lost runs of a store, looked for when the first trial turns out to have no run."""

    def __init__(self, store: Store, runs: Sequence[Run]) -> None:
        """Take all runs of the store that are not deleted."""
        self.store = store
        self.by_content = {
            (run.data.tags.get(tag.SPEC_HASH), run.data.tags.get(tag.FINGERPRINT)): run
            for run in runs
        }
        deleted = find_runs(store, {}, ViewType.DELETED_ONLY)
        self.deleted = {run.data.tags.get(tag.KEY): run for run in deleted if self._complete(run)}
        known = {run.info.run_id for run in (*runs, *deleted)}
        self.unknown = self._unknown_results(known)

    def why(self, key: str, spec: Spec, fingerprint: str) -> str:
        """Return why a trial that has no run may be finished, and what to do; empty if not."""
        if run := self.deleted.get(key):
            command = f"mlflow runs restore --run-id {run.info.run_id}"
            return (
                f"its finished run was deleted in MLflow: restore it (MLFLOW_TRACKING_URI="
                f"{without_passwords(self.store.uri)} {command}; mlflow gc would remove it for "
                f"good, with its weights and pictures), or {REPEAT}"
            )
        run = self.by_content.get((spec_hash(spec), fingerprint))
        if run and self._complete(run):
            tags = run.data.tags
            return (
                f"tags of its finished run {run.info.run_id} were changed in MLflow: found "
                f"{tag.KIND} {tags.get(tag.KIND)} and {tag.KEY} {tags.get(tag.KEY)}, expected "
                f"trial and {key}: set them back, or {REPEAT}"
            )
        if key in self.unknown:
            return (
                f"its results lie in {self.unknown[key]}, but the record does not know them, as if "
                f"an earlier database had been put in place: bring the later one back, or {REPEAT}"
            )
        return ""

    def _unknown_results(self, known: set[str]) -> dict[str, Path]:
        """Return the artifacts of finished runs that the record does not know, by run key."""
        with explained(self.store.uri):
            experiment = self.store.client.get_experiment(self.store.experiment_id)
        root = path_of(experiment.artifact_location)
        if root is None or not root.is_dir():
            return {}
        results = {}
        for folder in root.iterdir():
            identity = folder / "artifacts" / "identity.json"
            if folder.name in known or not identity.is_file():
                continue
            if (folder / "artifacts" / IMAGES_FILE).is_file():
                results[digest(json.loads(identity.read_text(encoding="utf-8")))] = folder
        return results

    def _complete(self, run: Run) -> bool:
        return RecordedRun(self.store, run).complete
