"""Finished runs, named by the first digits of their keys and read back for people to compare."""

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
    shown,
    trial_runs,
)

LEAST_DIGITS = 6


def chosen_runs(store: Store, given: Sequence[str]) -> list[Run]:
    """Return the finished run of every run key or unambiguous prefix, in their order.

    Raises `UserError` for what is no key, unknown, ambiguous or not finished.
    """
    recorded = trial_runs(store)
    return [_chosen(recorded, one, store) for one in given]


def _chosen(recorded: Mapping[str, Run], given: str, store: Store) -> Run:
    keys = "shown by: mhiflab plan STUDY --keys"
    if not re.fullmatch(rf"[0-9a-f]{{{LEAST_DIGITS},64}}", given):
        raise UserError(
            f"run {given!r}: expected a run key or at least its first {LEAST_DIGITS} digits, as "
            f"{keys}"
        )
    found = sorted(key for key in recorded if key.startswith(given))
    if not found:
        raise UserError(
            f"run {given}: found no such run among the {len(recorded)} on record in "
            f"{shown(store.uri)}, expected a key {keys}"
        )
    if len(found) > 1:
        raise UserError(
            f"run {given}: found {len(found)} runs that begin so ({', '.join(found)}), expected "
            "one; give more digits"
        )
    run = recorded[found[0]]
    if run.info.status != "FINISHED":
        raise UserError(
            f"run {given}: found it {run.info.status}, expected FINISHED; let its study finish "
            "first: mhiflab run STUDY"
        )
    return run


@contextmanager
def packaged_model(store: Store, run: Run) -> Iterator[Path]:
    """Yield a local copy of a finished run's packaged model; raise `UserError` where it has none.

    Classical methods, and runs that a search did not test, have none.
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

TEXTS = ("protocol.about", "protocol.known", "protocol.inferred", "protocol.source")
"""Parts of a spec that are for readers alone."""

CODE = (
    *("git_commit", "git_dirty", "lock_sha256", "python", "versions"),
    *("device", "system", "threads", "workers", "resources"),
)
"""Parts of a run's provenance that its result may depend on beside spec and data."""


@dataclass(frozen=True)
class RecordedRun:
    """A finished run, as its record tells it."""

    name: str
    tags: Mapping[str, str]
    spec: Mapping[str, Any]
    code: Mapping[str, Any]
    data: Mapping[str, Any]
    about: Mapping[str, Any]
    """Its provenance, as recorded."""
    images: pd.DataFrame
    curve: Mapping[int, float]
    """Validation PSNR by epoch."""


def read_run(store: Store, run: Run) -> RecordedRun:
    """Read what a finished run recorded; raise `UserError` where a part of it is missing."""
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
    # What is not trained has no seed.
    seed = "" if spec.get("model.name") in CLASSICAL else f" seed {tags[SEED]}"
    diff = text(DIFF_FILE) if has_artifact(store, run_id, DIFF_FILE) else ""
    return RecordedRun(
        name=f"{tags.get('mhiflab.label', '?')}{seed} ({tags[KEY][:8]})",
        tags=tags,
        spec={k: v for k, v in spec.items() if k not in TEXTS},
        code=code_parts(about, diff),
        data={"fingerprint": tags.get(FINGERPRINT), **_datasets(run)},
        about=about,
        images=read(IMAGES_FILE, read_images),
        curve=metric_history(store, run_id, ["val_psnr"])["val_psnr"],
    )


def code_parts(about: Mapping[str, Any], diff: str) -> dict[str, Any]:
    """Return what a result may depend on beside spec and data, under dotted names."""
    found = flatten({name: about[name] for name in CODE if name in about})
    if diff:
        digest = hashlib.sha256(diff.encode()).hexdigest()[:12]
        found["uncommitted changes"] = f"{len(diff.splitlines())} lines, SHA-256 {digest}"
    return found


def _datasets(run: Run) -> dict[str, Any]:
    """Return the scenes of every part of the data."""
    found = {}
    for one in run.inputs.dataset_inputs:
        context = next((tag.value for tag in one.tags if tag.key == "mlflow.data.context"), "data")
        scenes = json.loads(one.dataset.profile or "{}").get("scenes", [one.dataset.name])
        found[context] = f"{len(scenes)}: {', '.join(scenes)}"
    return dict(sorted(found.items()))
