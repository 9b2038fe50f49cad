"""Recorded runs as a folder of small text files, and back into a store.

The folder holds what tables and curves are made of, no weights and no pictures, so that it can lie
beside a paper: `data.json` (the data's identity, so that tables need no scenes) and one file a run.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, RunTag

from feinfn.checkpoint import write_atomic
from feinfn.config import DataConfig
from feinfn.data.source import Survey, Surveyed, resolve_data, survey
from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.plan import DataAccess, read_plan, reconcile
from mhiflab.reading import build
from mhiflab.tracking import (
    CASE,
    FINGERPRINT,
    IMAGES_FILE,
    KEY,
    KIND,
    SEED,
    SPEC_HASH,
    STUDY,
    TESTED_TAG,
    Store,
    artifact_file,
    explained,
    open_store,
    trial_runs,
)

TAGS = (KIND, KEY, STUDY, CASE, SEED, FINGERPRINT, SPEC_HASH, TESTED_TAG, "mhiflab.label")
FILES = (IMAGES_FILE, "spec.json", "provenance.json")
HISTORIES = ("epoch", "val_psnr", "train_seconds", "loss")
"""Metrics that are kept at every step; of all others the last value."""
OWN = ("host", "system", "warnings")
"""What provenance tells of a machine alone."""
DATA_FILE, RUNS = "data.json", "runs"


def _name(config: DataConfig) -> str:
    return json.dumps(asdict(config), sort_keys=True)


def _portable(found: Survey) -> Survey:
    # Where files lay is no part of an identity.
    return replace(found, scenes=tuple(replace(one, source=one.name) for one in found.scenes))


def export(files: Iterable[Path], smoke: bool, store: Store, lab: Lab, folder: Path) -> list[Path]:
    """Write every run of some studies into a folder and return the paths of the runs' files.

    Raises `UserError` where a study lacks runs; nothing is written then.
    """
    data: dict[str, dict[str, Any]] = {}

    def resolve(config: DataConfig) -> DataConfig:
        found = resolve_data(config)
        own = replace(found, source=config.source)
        data[_name(config)] = {"resolved": asdict(own), "survey": asdict(_portable(survey(found)))}
        return found

    plans = [
        reconcile(read_plan(file, smoke, DataAccess(resolve, survey)), store, lab) for file in files
    ]
    for plan in plans:
        plan.refuse_missing()
    written = []
    for entry in {e.key: e for plan in plans for e in plan.entries}.values():
        assert entry.run is not None, "a done entry has a run"
        path = folder / RUNS / f"{entry.key[:16]}.json"
        _write(path, _run(store, entry.run.info.run_id))
        written.append(path)
    _write(folder / DATA_FILE, data)
    return written


def _write(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(path, lambda partial: partial.write_bytes(text.encode()))


def _run(store: Store, run_id: str) -> dict[str, Any]:
    with explained(store.uri):
        run = store.client.get_run(run_id)
        metrics: dict[str, list[list[float]]] = {}
        for name, value in sorted(run.data.metrics.items()):
            if name.startswith("system/"):
                continue
            history = store.client.get_metric_history(run_id, name)
            points = sorted((one.step, one.value) for one in history)
            metrics[name] = (
                [list(p) for p in points] if name in HISTORIES else [[points[-1][0], value]]
            )
    texts = {}
    for name in FILES:
        with artifact_file(store, run_id, name) as path:
            texts[name] = path.read_text(encoding="utf-8")
    told = json.loads(texts["provenance.json"])
    texts["provenance.json"] = json.dumps({k: v for k, v in told.items() if k not in OWN})
    spec = json.loads(texts["spec.json"])
    # Where the files lay is a matter of that machine too.
    spec["data"]["source"] = Path(spec["data"]["source"]).name
    spec["protocol"]["srf"] = Path(spec["protocol"]["srf"]).name
    texts["spec.json"] = json.dumps(spec)
    tags = {name: run.data.tags[name] for name in TAGS if name in run.data.tags}
    return {"name": run.info.run_name, "tags": tags, "metrics": metrics, "files": texts}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}), expected a file that `mhiflab export` wrote"
        ) from None


def known_data(folder: Path) -> DataAccess:
    """Return what an archive knows of its studies' data; raises `UserError` for other data."""
    found: Mapping[str, Any] = _read(folder / DATA_FILE)
    surveys: dict[str, Survey] = {}
    resolved: dict[str, DataConfig] = {}
    for name, one in found.items():
        resolved[name] = build(DataConfig, one["resolved"], str(folder / DATA_FILE))
        scenes = [
            Surveyed(
                **scene
                | {
                    key: None if scene[key] is None else tuple(scene[key])
                    for key in ("shape_SHW", "msi_size", "wavelengths_nm")
                }
            )
            for scene in one["survey"]["scenes"]
        ]
        surveys[_name(resolved[name])] = Survey(one["survey"]["fingerprint"], tuple(scenes))

    def resolve(config: DataConfig) -> DataConfig:
        if _name(config) not in resolved:
            raise UserError(
                f"data.source: found {config.source!r} with scenes that {folder} does not know, "
                "expected those of its runs; export them again"
            )
        return resolved[_name(config)]

    return DataAccess(resolve, lambda config: surveys[_name(config)])


def bring_in(folder: Path, store: Store) -> int:
    """Make a run in a store of every run of an archive that it lacks; return how many."""
    have = trial_runs(store)
    count = 0
    for path in sorted((folder / RUNS).glob("*.json")):
        content = _read(path)
        if content["tags"][KEY] in have:
            continue
        with explained(store.uri):
            run = store.client.create_run(
                store.experiment_id, run_name=content["name"], tags=content["tags"]
            )
            run_id = run.info.run_id
            points = [
                Metric(name, value, 0, int(step))
                for name, history in content["metrics"].items()
                for step, value in history
            ]
            for start in range(0, len(points), 1000):
                store.client.log_batch(run_id, metrics=points[start : start + 1000])
            for name, text in content["files"].items():
                store.client.log_text(run_id, text, name)
            store.client.log_batch(run_id, tags=[RunTag("mhiflab.archived", "true")])
            store.client.set_terminated(run_id, "FINISHED")
        count += 1
    return count


def archived_store(folder: Path, lab: Lab) -> Store:
    """Return a store in `lab` that holds an archive's runs."""
    store = open_store(lab, f"sqlite:///{lab.database.resolve()}")
    bring_in(folder, store)
    return store
