"""Recorded runs as a folder of small text files, and back into a store.

The folder holds what tables and curves are made of, no weights and no pictures, so that it can lie
beside a paper: `data.json` (the data's identity, so that tables need no scenes) and one file a run.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from mlflow.entities import Metric

from feinfn.config import STRICT, DataConfig
from feinfn.data.source import Survey, Surveyed, resolve_data, survey
from feinfn.errors import UserError
from feinfn.files import write_bytes
from mhiflab.paths import Lab
from mhiflab.plan import read_plan, reconcile
from mhiflab.study.identity import run_key, spec_hash
from mhiflab.study.spec import DataAccess, parse_trial
from mhiflab.study.yaml_values import build
from mhiflab.tracking import (
    ARCHIVED_TAG,
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
TAGS_NEEDED = (KEY, FINGERPRINT, SPEC_HASH)
FILES = (IMAGES_FILE, "spec.json", "provenance.json")
HISTORIES = ("epoch", "val_psnr", "train_seconds", "loss")
"""Metrics that are kept at every step; of all others the last value."""
OWN = ("host", "system", "warnings")
"""What provenance tells of a machine alone."""
DATA_FILE, RUNS = "data.json", "runs"


@dataclass(frozen=True, kw_only=True)
class ArchivedRun:
    """A run as its file holds it."""

    __pydantic_config__: ClassVar[dict] = STRICT

    name: str
    tags: dict[str, str]
    metrics: dict[str, list[tuple[int, float]]]
    """Steps and values by name."""
    files: dict[str, str]
    """Texts by the artifact's name."""


def _name(config: DataConfig) -> str:
    return json.dumps(asdict(config), sort_keys=True)


def _portable(found: Survey) -> Survey:
    # Where files lay is no part of an identity.
    return replace(found, scenes=tuple(replace(one, source=one.name) for one in found.scenes))


def export(files: Iterable[Path], smoke: bool, store: Store, lab: Lab, folder: Path) -> list[Path]:
    """Write every run of some studies into a folder and return the paths of the runs' files.

    What the folder holds of other studies stays. Raises `UserError` where a study lacks runs, or
    where the folder's data cannot be read; nothing is written then.
    """
    data: dict[str, dict[str, Any]] = {}
    if (folder / DATA_FILE).exists():
        known_data(folder)
        data = _read(folder / DATA_FILE)

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
        path = folder / RUNS / _file_name(entry.key)
        _write(path, _run(store, entry.run.info.run_id))
        written.append(path)
    _write(folder / DATA_FILE, data)
    return written


def _file_name(key: str) -> str:
    return f"{key[:16]}.json"


def _write(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())


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
    path = folder / DATA_FILE
    surveys: dict[str, Survey] = {}
    resolved: dict[str, DataConfig] = {}
    try:
        for name, one in _read(path).items():
            resolved[name] = build(DataConfig, one["resolved"], str(path))
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
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error!r}), expected the data of studies as `mhiflab export` "
            "wrote it; export them again"
        ) from None

    def resolve(config: DataConfig) -> DataConfig:
        if _name(config) not in resolved:
            raise UserError(
                f"data.source: found {config.source!r} with scenes that {folder} does not know, "
                "expected those of its runs; export them again"
            )
        return resolved[_name(config)]

    return DataAccess(resolve, lambda config: surveys[_name(config)])


def bring_in(folder: Path, store: Store) -> int:
    """Make a run in a store of every run of an archive that it lacks; return how many.

    Raises `UserError` for a file that is not what `export` wrote; no run is made then.
    """
    have = trial_runs(store)
    count = 0
    for content in [_read_run(path) for path in sorted((folder / RUNS).glob("*.json"))]:
        if content.tags[KEY] in have:
            continue
        with explained(store.uri):
            run = store.client.create_run(
                store.experiment_id,
                run_name=content.name,
                tags=content.tags | {ARCHIVED_TAG: "true"},
            )
            run_id = run.info.run_id
            points = [
                Metric(name, value, 0, step)
                for name, history in content.metrics.items()
                for step, value in history
            ]
            for start in range(0, len(points), 1000):
                store.client.log_batch(run_id, metrics=points[start : start + 1000])
            for name, text in content.files.items():
                store.client.log_text(run_id, text, name)
            store.client.set_terminated(run_id, "FINISHED")
        count += 1
    return count


def _read_run(path: Path) -> ArchivedRun:
    """Return a run from its file; raise `UserError` where name, tags and spec do not belong."""
    found: ArchivedRun = build(ArchivedRun, _read(path), str(path))
    for what, given, wanted in (("tags", found.tags, TAGS_NEEDED), ("files", found.files, FILES)):
        if lacking := [name for name in wanted if name not in given]:
            raise UserError(f"{path}: {what}: found no {', '.join(lacking)}; export the run again")
    key = found.tags[KEY]
    # One file a key: of two, a changed copy could stand for the run.
    if path.name != _file_name(key):
        raise UserError(
            f"{path}: found run key {key}, expected the file to be named {_file_name(key)} after "
            "it; remove the file, or export the run again"
        )
    try:
        own = _spec_is_own(found, str(path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: spec.json: cannot be read ({error!r})") from None
    if not own:
        raise UserError(
            f"{path}: found a spec.json that is not the one its tags' hashes were made of; export "
            "the run again"
        )
    return found


def _spec_is_own(run: ArchivedRun, where: str) -> bool:
    """Return whether a run's spec has the hashes that its tags tell."""
    settings = json.loads(run.files["spec.json"])
    if settings["protocol"]["srf"].endswith(".csv"):
        # The table itself, which the hashes are made of, stayed where the run was made.
        return True
    spec, _ = parse_trial(settings, settings.pop("seed"), where, lambda config: config)
    hashes = spec_hash(spec), run_key(spec, run.tags[FINGERPRINT])
    return hashes == (run.tags[SPEC_HASH], run.tags[KEY])


def archived_store(folder: Path, lab: Lab) -> Store:
    """Return a store in `lab` that holds an archive's runs."""
    store = open_store(lab, f"sqlite:///{lab.database.resolve()}")
    bring_in(folder, store)
    return store
