"""Finished runs: find them by the first digits of their keys, and read what they recorded."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run

from feinfn.errors import UserError
from feinfn.methods.classical.registry import CLASSICAL
from mhiflab.record.artifacts import read_images
from mhiflab.record.description import flatten
from mhiflab.record.store import (
    FINGERPRINT,
    IMAGES_FILE,
    KEY,
    SEED,
    Store,
    artifact_file,
    has_artifact,
    metric_history,
    trial_runs,
    without_passwords,
)

LEAST_DIGITS = 6
"""Digits of a run key that a prefix needs."""


def chosen_runs(store: Store, prefixes: Sequence[str]) -> list[Run]:
    """Return the finished runs of some run keys or unambiguous prefixes, in their order.

    Raise `UserError` if one is no key, unknown, ambiguous, or of an unfinished run.
    """
    recorded = trial_runs(store)
    return [_chosen_run(recorded, prefix, store) for prefix in prefixes]


def _chosen_run(recorded: Mapping[str, Run], prefix: str, store: Store) -> Run:
    source = "shown by: mhiflab plan STUDY --keys"
    if not re.fullmatch(rf"[0-9a-f]{{{LEAST_DIGITS},64}}", prefix):
        raise UserError(
            f"run {prefix!r}: expected a run key or at least its first {LEAST_DIGITS} digits, as "
            f"{source}"
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
            f"run {prefix}: found it {run.info.status}, expected FINISHED; let its study finish "
            "first: mhiflab run STUDY"
        )
    return run


@contextmanager
def packaged_model(store: Store, run: Run) -> Iterator[Path]:
    """Yield the folder of a local copy of a finished run's packaged model.

    Raise `UserError` if it has none, like classical methods and a search's untested runs.
    """
    key = run.data.tags[KEY]
    if not has_artifact(store, run.info.run_id, "model"):
        raise UserError(
            f"run {key}: found no model with it, expected a run that was trained and tested; "
            "choose another, or give weights with --weights"
        )
    with artifact_file(store, run.info.run_id, "model") as folder:
        yield folder


DIFF_FILE = "uncommitted.diff"
"""Artifact of a run: the changes to its code that were not committed."""

READER_FIELDS = ("protocol.about", "protocol.known", "protocol.inferred", "protocol.source")
"""Fields of a spec that are texts for readers."""

CODE_FIELDS = (
    *("git_commit", "git_dirty", "lock_sha256", "python", "versions"),
    *("device", "system", "threads", "workers", "resources"),
)
"""Fields of a run's provenance that its result may depend on, beside spec and data."""


@dataclass(frozen=True)
class RecordedRun:
    """Content of a finished run's record."""

    name: str
    """Label, seed and the key's first digits, for people."""
    tags: Mapping[str, str]
    spec: Mapping[str, Any]
    """Settings by dotted name, without `READER_FIELDS`."""
    code: Mapping[str, Any]
    """`code_parts` of its provenance."""
    data: Mapping[str, Any]
    """Fingerprint, and scenes by part."""
    about: Mapping[str, Any]
    """Provenance, as recorded."""
    images: pd.DataFrame
    """Metrics of its test images."""
    curve: Mapping[int, float]
    """Validation PSNR by epoch."""


def read_run(store: Store, run: Run) -> RecordedRun:
    """Return the record of a finished run; raise `UserError` if a part of it is missing."""
    run_id, tags = run.info.run_id, run.data.tags

    def read(name: str, load: Callable[[Path], Any]) -> Any:
        with artifact_file(store, run_id, name) as path:
            return load(path)

    def text(name: str) -> str:
        return read(name, lambda path: path.read_text(encoding="utf-8"))

    if not has_artifact(store, run_id, IMAGES_FILE):
        raise UserError(
            f"run {tags[KEY]}: found no metrics of test images with it, expected a run that was "
            "tested; choose another"
        )
    spec = flatten(json.loads(text("spec.json")))
    about = json.loads(text("provenance.json"))
    # A method that is not trained has no seed.
    seed = "" if spec.get("model.name") in CLASSICAL else f" seed {tags[SEED]}"
    diff = text(DIFF_FILE) if has_artifact(store, run_id, DIFF_FILE) else ""
    return RecordedRun(
        name=f"{tags.get('mhiflab.label', '?')}{seed} ({tags[KEY][:8]})",
        tags=tags,
        spec={k: v for k, v in spec.items() if k not in READER_FIELDS},
        code=code_parts(about, diff),
        data={"fingerprint": tags.get(FINGERPRINT), **_datasets(run)},
        about=about,
        images=read(IMAGES_FILE, read_images),
        curve=metric_history(store, run_id, ["val_psnr"])["val_psnr"],
    )


def code_parts(about: Mapping[str, Any], diff: str) -> dict[str, Any]:
    """Return the `CODE_FIELDS` of a run's provenance by dotted name, with a digest of its diff."""
    parts = flatten({name: about[name] for name in CODE_FIELDS if name in about})
    if diff:
        digest = hashlib.sha256(diff.encode()).hexdigest()[:12]
        parts["uncommitted changes"] = f"{len(diff.splitlines())} lines, SHA-256 {digest}"
    return parts


def _datasets(run: Run) -> dict[str, Any]:
    """Return the scenes of every part of the data, by MLflow's context, as texts."""
    datasets = {}
    for item in run.inputs.dataset_inputs:
        context = next((tag.value for tag in item.tags if tag.key == "mlflow.data.context"), "data")
        scenes = json.loads(item.dataset.profile or "{}").get("scenes", [item.dataset.name])
        datasets[context] = f"{len(scenes)}: {', '.join(scenes)}"
    return dict(sorted(datasets.items()))
