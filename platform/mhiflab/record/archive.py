"""Archives: recorded runs as a folder of small text files, read back into a store.

The folder holds the numbers behind tables and curves, but no weights and no pictures, so that it
can lie beside a paper. `data.json` holds the data's identity, so that tables need no scenes; every
run has a file of its own, which holds it as one `Part`.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from feinfn.config import DataConfig
from feinfn.data.source import EMBEDDED, Survey, resolve_data, survey
from feinfn.errors import UserError, require_one_of
from mhiflab.paths import Lab
from mhiflab.record import tag
from mhiflab.record.artifacts import IMAGES_FILE
from mhiflab.record.database.errors import explained
from mhiflab.record.run_folder import Part
from mhiflab.record.store import Store, open_store, recorded_store, trial_runs
from mhiflab.record.upload import Upload
from mhiflab.study.identity import run_key, spec_hash
from mhiflab.study.spec import DataAccess, parse_trial
from mhiflab.study.yaml_values import build

TAGS_NEEDED = (tag.KEY, tag.FINGERPRINT, tag.SPEC_HASH)
"""Tags that every archived run has."""

TAGS = (*TAGS_NEEDED, tag.KIND, tag.STUDY, tag.CASE, tag.SEED, tag.TESTED, tag.LABEL)
"""Tags that an archive keeps, beside a search's values."""

TAGS_OF_UNTESTED = (tag.STOPPED, tag.ERROR)
"""Tags that an archive keeps, too, of a search's suggestions that were not tested."""

FILES = (IMAGES_FILE, "spec.json", "provenance.json")
"""Artifacts that an archive keeps."""

ENDS_OF_UNTESTED = ("FINISHED", "KILLED", "FAILED")
"""Statuses of these suggestions; a run that was tested states none."""

DATA_FILE, RUNS = "data.json", "runs"
"""File and folder inside an archive."""


@dataclass(frozen=True)
class ArchivedData:
    """Identity of some data in `data.json`."""

    resolved: DataConfig
    survey: Survey


def data_name(config: DataConfig) -> str:
    """Return the key of some data in `data.json`."""
    return json.dumps(asdict(config), sort_keys=True)


def run_file(key: str) -> str:
    """Return the name of a run's file."""
    return f"{key[:16]}.json"


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raise `UserError` if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({error}), expected a file that `mhiflab export` wrote"
        ) from None


def archived_data(folder: Path) -> DataAccess:
    """Return access to the data of an archive's studies, from its `data.json`.

    Raise `UserError` if that file is damaged; the returned `resolve` raises it for other data.
    """
    path = folder / DATA_FILE
    where = f"{path}, which `mhiflab export` writes"
    data: dict[str, ArchivedData] = build(dict[str, ArchivedData], read_json(path), where)
    surveys = {data_name(one.resolved): one.survey for one in data.values()}

    def resolve(config: DataConfig) -> DataConfig:
        if data_name(config) not in data:
            raise UserError(
                f"data.source: found {config.source!r} with scenes that are not in {folder}, "
                "expected the scenes of its runs; export them again"
            )
        return data[data_name(config)].resolved

    return DataAccess(resolve, lambda config: surveys[data_name(config)])


def archived_store(folder: Path, lab: Lab) -> Store:
    """Return the store of a lab, with an archive's runs imported."""
    store = open_store(lab, f"sqlite:///{lab.database.resolve()}")
    import_archive(folder, store)
    return store


def import_archive(folder: Path, store: Store) -> int:
    """Create the runs of an archive that a store lacks, and return their number.

    Raise `UserError`, before any run is created, if a file is not as `export` wrote it.
    """
    recorded = trial_runs(store)
    runs = [_read_run(path) for path in sorted((folder / RUNS).glob("*.json"))]
    missing = [run for run in runs if run.tags[tag.KEY] not in recorded]
    with explained(store.uri):
        for run in missing:
            tags = run.tags | {tag.ARCHIVED: "true"}
            if run.status:
                tags[tag.TESTED] = "false"
            Upload(lambda: store).apply(replace(run, tags=tags, status=run.status or "FINISHED"))
    return len(missing)


def _read_run(path: Path) -> Part:
    """Return a run from its file; raise `UserError` if name, tags and spec do not match."""
    run: Part = build(Part, read_json(path), str(path))
    if run.status is not None:
        require_one_of(f"{path}: status", run.status, ENDS_OF_UNTESTED)
    files = ("spec.json",) if run.status else FILES
    for field, names, needed in (("tags", run.tags, TAGS_NEEDED), ("files", run.files, files)):
        if missing := [name for name in needed if name not in names]:
            raise UserError(f"{path}: {field}: found no {', '.join(missing)}; export the run again")
    key = run.tags[tag.KEY]
    # One file per key: otherwise a changed copy could take the run's place.
    if path.name != run_file(key):
        raise UserError(
            f"{path}: found run key {key}, expected the file to be named {run_file(key)} after "
            "it; remove the file, or export the run again"
        )
    try:
        matches = _spec_matches_tags(run, str(path))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: spec.json: cannot be read ({error!r})") from None
    if not matches:
        raise UserError(
            f"{path}: found a spec.json that does not match the hashes in the run's tags; export "
            "the run again"
        )
    return run


def _spec_matches_tags(run: Part, where: str) -> bool:
    """Return True if a run's spec has the hashes in its tags."""
    settings = json.loads(run.files["spec.json"])
    if settings["protocol"]["srf"].endswith(".csv"):
        # The hashes depend on the table's content, which no archive holds.
        return True
    spec, _ = parse_trial(settings, settings.pop("seed"), where, lambda config: config)
    hashes = spec_hash(spec), run_key(spec, run.tags[tag.FINGERPRINT])
    return hashes == (run.tags[tag.SPEC_HASH], run.tags[tag.KEY])


def data_access_of(record: Path | None) -> DataAccess:
    """Return access to data through an archive's `data.json`, or to the scenes without one.

    If the source is missing, the error names `--record` as a way out.
    """
    if record:
        return archived_data(record)

    def resolve(config: DataConfig) -> DataConfig:
        try:
            return resolve_data(config)
        except UserError as error:
            if config.source in EMBEDDED or Path(config.source).exists():
                raise
            raise UserError(
                f"{error}; run this in the folder that the path is relative to, or write the runs "
                "with mhiflab export where the data are, and give that folder with --record"
            ) from None

    return DataAccess(resolve, survey)


@contextmanager
def opened_store(record: Path | None, lab: Lab) -> Iterator[Store]:
    """Yield a store with an archive's runs, or the lab's store without one.

    Raise `UserError` if there is no record, or if the archive cannot be read.
    """
    if record is None:
        yield recorded_store(lab)
        return
    with TemporaryDirectory(prefix="mhiflab-") as folder:
        yield archived_store(record, Lab(Path(folder)))
