"""Finished runs: find them by the first digits of their keys, and read what they recorded."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pandas as pd
from mlflow.entities import Run

from feinfn.errors import UserError
from feinfn.files import BEST
from feinfn.methods.configs import CLASSICAL_NAMES
from mhiflab.record import artifacts, tag
from mhiflab.record.database.errors import explained, without_passwords
from mhiflab.record.store import Store, trial_runs
from mhiflab.study.settings import flatten

if TYPE_CHECKING:
    from feinfn.methods.network import Network

LEAST_DIGITS = 6
"""Digits of a run key that a prefix needs."""

DIFF_FILE = "uncommitted.diff"
"""Artifact of a run: the changes to its code that were not committed."""

READER_FIELDS = ("protocol.about", "protocol.known", "protocol.inferred", "protocol.source")
"""Fields of a spec that are texts for readers."""

CODE_FIELDS = (
    *("git_commit", "git_dirty", "lock_sha256", "python", "versions"),
    *("device", "system", "threads", "workers", "resources"),
)
"""Fields of a run's provenance that its result may depend on, beside spec and data."""

T = TypeVar("T")


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8."""
    return path.read_text(encoding="utf-8")


@dataclass(frozen=True)
class RecordedRun:
    """A trial's run on record; its artifacts are read when they are asked for, each once."""

    store: Store = field(repr=False)
    mlflow: Run = field(repr=False)
    """The run as MLflow holds it."""

    @property
    def id(self) -> str:
        """MLflow's id."""
        return self.mlflow.info.run_id

    @property
    def tags(self) -> Mapping[str, str]:
        """MLflow's tags."""
        return self.mlflow.data.tags

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last value of every metric."""
        return self.mlflow.data.metrics

    @property
    def key(self) -> str:
        """Run key."""
        return self.tags[tag.KEY]

    @property
    def complete(self) -> bool:
        """True if the run is finished and was tested."""
        return self.mlflow.info.status == "FINISHED" and self.tags.get(tag.TESTED) != "false"

    @cached_property
    def name(self) -> str:
        """Label, seed if it is trained, and the key's first digits, for people."""
        trained = self.spec.get("model.name") not in CLASSICAL_NAMES
        seed = f" seed {self.tags[tag.SEED]}" if trained else ""
        return f"{self.tags.get('mhiflab.label', '?')}{seed} ({self.key[:8]})"

    def has(self, name: str) -> bool:
        """Return True if the run has a top-level artifact of this name."""
        return artifacts.has_artifact(self.store, self.id, name)

    def read(self, name: str, load: Callable[[Path], T]) -> T:
        """Return an artifact as `load` reads it; raise `UserError` if it is missing."""
        with self._artifact(name) as path:
            return load(path)

    def _artifact(self, name: str) -> AbstractContextManager[Path]:
        uri = self.mlflow.info.artifact_uri
        return artifacts.artifact_file(self.store, self.id, name, uri)

    @cached_property
    def spec(self) -> Mapping[str, Any]:
        """Settings by dotted name, without `READER_FIELDS`."""
        settings = flatten(json.loads(self.read("spec.json", read_text)))
        return {name: value for name, value in settings.items() if name not in READER_FIELDS}

    @cached_property
    def provenance(self) -> Mapping[str, Any]:
        """Code, machine and facts about the training, as recorded."""
        return json.loads(self.read("provenance.json", read_text))

    @cached_property
    def code(self) -> Mapping[str, Any]:
        """`code_parts` of its provenance."""
        diff = self.read(DIFF_FILE, read_text) if self.has(DIFF_FILE) else ""
        return code_parts(self.provenance, diff)

    @cached_property
    def data(self) -> Mapping[str, Any]:
        """Fingerprint, and number and names of the scenes by MLflow's context."""
        datasets = {}
        for item in self.mlflow.inputs.dataset_inputs:
            contexts = [t.value for t in item.tags if t.key == "mlflow.data.context"]
            scenes = json.loads(item.dataset.profile or "{}").get("scenes", [item.dataset.name])
            datasets[[*contexts, "data"][0]] = f"{len(scenes)}: {', '.join(scenes)}"
        return {"fingerprint": self.tags.get(tag.FINGERPRINT), **dict(sorted(datasets.items()))}

    @cached_property
    def images(self) -> pd.DataFrame:
        """Metrics of the test images: a row for every image, method and convention."""
        return self.read(artifacts.IMAGES_FILE, artifacts.read_images)

    @cached_property
    def arrays(self) -> Mapping[str, np.ndarray]:
        """Arrays of the run's pictures (see `evaluate.Scores`), each unpacked on access.

        Raises `UserError` if the file is damaged, now or on access to a damaged array.
        """
        content = self.read(artifacts.QUICKLOOK_FILE, Path.read_bytes)
        return artifacts.Pictures(content, self.name)

    @cached_property
    def network(self) -> "Network":
        """The trained network."""
        # Not above: records are found without torch.
        from feinfn.methods.weights import load_model

        return self.read(f"model/{BEST}", load_model)

    def history(self, name: str) -> dict[int, float]:
        """Return the values of a metric by epoch."""
        with explained(self.store.uri):
            points = self.store.client.get_metric_history(self.id, name)
        return {point.step: point.value for point in points}

    def means(self, scene: str | None = None, method: str = artifacts.FUSED) -> pd.Series:
        """Return the metrics of one test image, or their means over all, and their `convention`."""
        table = self.images
        rows = table[(table["method"] == method) & (scene is None or table["scene"] == scene)]
        convention = artifacts.usual_convention(rows)
        rows = rows[rows["convention"] == convention]
        means = rows[list(artifacts.metrics_of(convention))].mean(skipna=False).astype(object)
        means["convention"] = convention
        return means

    def window(self, scene: str | None = None) -> artifacts.Window:
        """Return the part of the first test image that is kept with all bands.

        Raises `UserError` if there is none or `scene` is another image.
        """
        arrays, end = self.arrays, "/window/place"
        scenes = [key.removesuffix(end) for key in arrays if key.endswith(end)]
        if not scenes:
            raise UserError(
                f"{self.name}: found a run without any image's bands (no <image>{end} in its "
                f"{artifacts.QUICKLOOK_FILE}), which older versions made; delete the run and run "
                "its study again with --repeat-lost"
            )
        if scene not in (None, *scenes):
            raise UserError(
                f"{self.name}: option scene: found {scene!r}, expected {scenes[0]!r}, the only "
                "test image that is kept with all its bands"
            )
        key = f"{scenes[0]}/window"

        def image(name: str) -> np.ndarray:
            return arrays[f"{key}/{name}"].astype(np.float32) / artifacts.WINDOW_STEPS

        row, col = (int(n) for n in arrays[f"{key}/place"])
        return artifacts.Window(
            scenes[0],
            (row, col),
            msi_MHW=arrays[f"{key}/msi"],
            lms_SHW=image(artifacts.UPSAMPLED),
            lr_hsi_Shw=arrays[f"{key}/lr_hsi"],
            reference_SHW=image("reference") if f"{key}/reference" in arrays else None,
            fused_SHW=image(artifacts.FUSED),
            wavelengths_nm=arrays.get(f"{key}/wavelengths_nm"),
        )

    @contextmanager
    def packaged_model(self) -> Iterator[Path]:
        """Yield the folder of the run's packaged model, to be read.

        Raise `UserError` if it has none, like classical methods and a search's untested runs.
        """
        if not self.has("model"):
            raise UserError(
                f"run {self.key}: found no model with it, expected a run that was trained and "
                "tested; choose another, or give weights with --weights"
            )
        with self._artifact("model") as folder:
            yield folder


def code_parts(provenance: Mapping[str, Any], diff: str) -> dict[str, Any]:
    """Return the `CODE_FIELDS` of a run's provenance by dotted name, with a digest of its diff."""
    parts = flatten({name: provenance[name] for name in CODE_FIELDS if name in provenance})
    if diff:
        digest = hashlib.sha256(diff.encode()).hexdigest()[:12]
        parts["uncommitted changes"] = f"{len(diff.splitlines())} lines, SHA-256 {digest}"
    return parts


def chosen_runs(store: Store, prefixes: Sequence[str]) -> list[RecordedRun]:
    """Return the finished runs of some run keys or unambiguous prefixes, in their order.

    Raise `UserError` if one is no key, unknown, ambiguous, or of an unfinished run.
    """
    recorded, runs = trial_runs(store), []
    source = "shown by: mhiflab plan STUDY --keys"
    for prefix in prefixes:
        if not re.fullmatch(rf"[0-9a-f]{{{LEAST_DIGITS},64}}", prefix):
            raise UserError(
                f"run {prefix!r}: expected a run key or at least its first {LEAST_DIGITS} digits, "
                f"as {source}"
            )
        keys = sorted(key for key in recorded if key.startswith(prefix))
        if not keys:
            raise UserError(
                f"run {prefix}: found no such run among the {len(recorded)} on record in "
                f"{without_passwords(store.uri)}, expected a key {source}"
            )
        if len(keys) > 1:
            raise UserError(
                f"run {prefix}: found {len(keys)} runs that begin so ({', '.join(keys)}), expected "
                "one; give more digits"
            )
        run = recorded[keys[0]]
        if run.info.status != "FINISHED":
            raise UserError(
                f"run {prefix}: found it {run.info.status}, expected FINISHED; let its study "
                "finish first: mhiflab run STUDY"
            )
        runs.append(RecordedRun(store, run))
    return runs
