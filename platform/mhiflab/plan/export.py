"""Export recorded runs as a folder of small text files."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from feinfn.config import DataConfig
from feinfn.data.source import resolve_data, survey
from feinfn.files import write_bytes
from mhiflab.paths import Lab
from mhiflab.plan.plan import read_plan, reconcile
from mhiflab.plan.search import SearchPlan, check_complete
from mhiflab.record import tag
from mhiflab.record.archive import (
    DATA_FILE,
    ENDS_OF_UNTESTED,
    FILES,
    RUNS,
    TAGS,
    TAGS_OF_UNTESTED,
    archived_data,
    data_name,
    read_json,
    run_file,
)
from mhiflab.record.finished import RecordedRun, read_text
from mhiflab.record.run_folder import Part
from mhiflab.record.store import Store, by_key
from mhiflab.study.spec import DataAccess
from mhiflab.study.yaml_values import build

HISTORIES = ("epoch", "val_psnr", "train_seconds", "loss")
"""Metrics whose values are kept at every step; of all others, only the last value is kept."""

MACHINE_FIELDS = ("host", "system", "warnings")
"""Fields of a run's provenance that concern its machine alone; archives leave them out."""


def export_runs(
    files: Iterable[Path], smoke: bool, store: Store, lab: Lab, folder: Path
) -> list[Path]:
    """Write every run of some studies into a folder and return the paths of the runs' files.

    The runs of a search are those of all its suggestions. The folder keeps the runs of other
    studies. Raise `UserError`, before anything is written, if a study lacks runs or the folder's
    data cannot be read.
    """
    data: dict[str, dict[str, Any]] = {}
    if (folder / DATA_FILE).exists():
        archived_data(folder)
        data = read_json(folder / DATA_FILE)

    def resolve(config: DataConfig) -> DataConfig:
        resolved = resolve_data(config)
        known = survey(resolved)
        # Neither the files' location nor their readers' notes are part of the data's identity.
        scenes = [{**asdict(one), "source": one.name} for one in known.scenes]
        for scene in scenes:
            del scene["notes"]
            if scene["images"] == 1:
                # As archives were before there were several.
                del scene["images"]
        data[data_name(config)] = {
            "resolved": asdict(replace(resolved, source=config.source)),
            "survey": {**asdict(known), "scenes": scenes},
        }
        return resolved

    plans = [
        reconcile(read_plan(file, smoke, DataAccess(resolve, survey)), store, lab) for file in files
    ]
    for plan in plans:
        check_complete(plan.searches, plan.command)
    runs = {entry.key: entry.run for plan in plans for entry in plan.complete()}
    searches = [search for plan in plans for search in plan.searches]
    recorded = by_key(run for plan in plans for run in plan.recorded)
    for one in (one for search in searches for one in search.suggestions):
        runs.setdefault(one.key, RecordedRun(store, recorded[one.key]))
    parts = {
        folder / RUNS / run_file(key): _archived_part(run, searches) for key, run in runs.items()
    }
    parts = {path: _with_other_searches(part, path) for path, part in parts.items()}
    for path, part in parts.items():
        _write(path, part.plain())
    _write(folder / DATA_FILE, data)
    return list(parts)


def _write(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode())


def _archived_part(run: RecordedRun, searches: Sequence[SearchPlan]) -> Part:
    """Return a run as its file in an archive holds it, with its tags of some searches."""
    histories = {*HISTORIES, *(name for search in searches for name in search.search.objectives)}
    metrics: dict[str, list[tuple[int, float]]] = {}
    for name, value in sorted(run.metrics.items()):
        if not name.startswith("system/"):
            points = sorted(run.history(name).items())
            metrics[name] = points if name in histories else [(points[-1][0], value)]
    # A suggestion may have been stopped, or have failed, before it recorded them all.
    files = [name for name in FILES if run.complete or run.has(name)]
    texts = {name: run.read(name, read_text) for name in files}
    if "provenance.json" in texts:
        provenance = json.loads(texts["provenance.json"])
        texts["provenance.json"] = json.dumps(
            {k: v for k, v in provenance.items() if k not in MACHINE_FIELDS}
        )
    spec = json.loads(texts["spec.json"])
    # The files' location concerns the machine alone, too.
    spec["data"]["source"] = Path(spec["data"]["source"]).name
    spec["protocol"]["srf"] = Path(spec["protocol"]["srf"]).name
    texts["spec.json"] = json.dumps(spec)
    names = [*TAGS, *(() if run.complete else TAGS_OF_UNTESTED)]
    of_searches = tuple(search.tag_prefix for search in searches)
    tags = {k: v for k, v in run.tags.items() if k in names or k.startswith(of_searches)}
    info = run.mlflow.info
    # A worker that was being stopped may have reported last that it has begun.
    end = info.status if info.status in ENDS_OF_UNTESTED else "KILLED"
    status = None if run.complete else end
    return Part(name=info.run_name, tags=tags, metrics=metrics, files=texts, status=status)


def _with_other_searches(part: Part, path: Path) -> Part:
    """Return a run's part with what its file in the folder holds for searches of other studies."""
    if not path.exists():
        return part
    earlier: Part = build(Part, read_json(path), str(path))
    tags = {k: v for k, v in earlier.tags.items() if k.startswith(f"{tag.SEARCH}.")}
    metrics = dict(part.metrics)
    for name, points in metrics.items():
        before = earlier.metrics.get(name, [])
        if len(before) > len(points) and before[-1] == points[-1]:
            metrics[name] = before
    return replace(part, tags=tags | part.tags, metrics=metrics)
