"""Archives: recorded runs as a folder of small text files, read back into a store.

The folder holds what tables and curves are made of, no weights and no pictures, so that it can lie
beside a paper: `data.json` (the data's identity, so that tables need no scenes) and one file a run.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from mlflow.entities import Metric

from feinfn.config import STRICT, DataConfig
from feinfn.data.source import SceneSummary, Survey, resolve_data, survey
from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.record.store import (
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
    explained,
    open_store,
    recorded_store,
    trial_runs,
)
from mhiflab.study.identity import run_key, spec_hash
from mhiflab.study.spec import DataAccess, parse_trial
from mhiflab.study.yaml_values import build

TAGS = (KIND, KEY, STUDY, CASE, SEED, FINGERPRINT, SPEC_HASH, TESTED_TAG, "mhiflab.label")

TAGS_NEEDED = (KEY, FINGERPRINT, SPEC_HASH)

FILES = (IMAGES_FILE, "spec.json", "provenance.json")

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


def data_name(config: DataConfig) -> str:
    return json.dumps(asdict(config), sort_keys=True)


def run_file(key: str) -> str:
    return f"{key[:16]}.json"


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}), expected a file that `mhiflab export` wrote"
        ) from None


def archived_data(folder: Path) -> DataAccess:
    """Return what an archive knows of its studies' data; raises `UserError` for other data."""
    path = folder / DATA_FILE
    surveys: dict[str, Survey] = {}
    resolved: dict[str, DataConfig] = {}
    try:
        for name, one in read_json(path).items():
            resolved[name] = build(DataConfig, one["resolved"], str(path))
            scenes = [
                SceneSummary(
                    **scene
                    | {
                        key: None if scene[key] is None else tuple(scene[key])
                        for key in ("shape_SHW", "msi_size", "wavelengths_nm")
                    }
                )
                for scene in one["survey"]["scenes"]
            ]
            surveys[data_name(resolved[name])] = Survey(one["survey"]["fingerprint"], tuple(scenes))
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: cannot be read ({error!r}), expected the data of studies as `mhiflab export` "
            "wrote it; export them again"
        ) from None

    def resolve(config: DataConfig) -> DataConfig:
        if data_name(config) not in resolved:
            raise UserError(
                f"data.source: found {config.source!r} with scenes that {folder} does not know, "
                "expected those of its runs; export them again"
            )
        return resolved[data_name(config)]

    return DataAccess(resolve, lambda config: surveys[data_name(config)])


def import_archive(folder: Path, store: Store) -> int:
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
    found: ArchivedRun = build(ArchivedRun, read_json(path), str(path))
    for what, given, wanted in (("tags", found.tags, TAGS_NEEDED), ("files", found.files, FILES)):
        if lacking := [name for name in wanted if name not in given]:
            raise UserError(f"{path}: {what}: found no {', '.join(lacking)}; export the run again")
    key = found.tags[KEY]
    # One file a key: of two, a changed copy could stand for the run.
    if path.name != run_file(key):
        raise UserError(
            f"{path}: found run key {key}, expected the file to be named {run_file(key)} after "
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
    import_archive(folder, store)
    return store


def data_access_of(record: Path | None) -> DataAccess:
    """Return how a plan learns about its data: from an archive, or without one from scenes."""
    return archived_data(record) if record else DataAccess(_resolve, survey)


def _resolve(config: DataConfig) -> DataConfig:
    try:
        return resolve_data(config)
    except UserError as error:
        if config.source == "sample" or Path(config.source).exists():
            raise
        raise UserError(
            f"{error}; run this in the folder that the path starts from, or write the runs with "
            "mhiflab export where the data are, and give that folder with --record"
        ) from None


@contextmanager
def opened_store(record: Path | None, lab: Lab) -> Iterator[Store]:
    """Yield a store with the runs of an archive, or without one the lab's; raises `UserError`."""
    if record is None:
        yield recorded_store(lab)
        return
    with TemporaryDirectory(prefix="mhiflab-") as place:
        yield archived_store(record, Lab(Path(place)))
