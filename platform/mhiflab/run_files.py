"""What a finished run recorded, read back for people to compare."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run

from feinfn.errors import UserError
from feinfn.methods.classical.registry import CLASSICAL
from mhiflab.metric_files import read_images
from mhiflab.notes import flatten
from mhiflab.tracking import (
    FINGERPRINT,
    IMAGES_FILE,
    KEY,
    SEED,
    Store,
    artifact_file,
    has_artifact,
    metric_history,
)

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
