"""The code of a submitted job: both packages, the study and what it names, and nothing else."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from feinfn.errors import UserError
from mhiflab.cluster.code import code_files, git_provenance
from mhiflab.paths import study_path
from mhiflab.study.yaml_values import check_study, read_yaml

LIMIT_BYTES = 100 * 2**20
"""What Ray takes."""

STUDY_FOLDER = "study"
"""Folder of the study file and of those that it is based on."""


def _strings(value: Any) -> Iterator[str]:
    """Yield every text inside a YAML value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _strings(one)
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one)


def _with_bases(path: Path, seen: dict[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    """Return a study file and those that its `from` leads to; shipped ones travel anyway."""
    if path.resolve() in seen:
        return seen
    value = seen[path.resolve()] = read_yaml(path)
    base = value.get("base", value)
    given = base.get("from") if isinstance(base, dict) else None
    if isinstance(given, str):
        for text in filter(None, (given, given.rpartition("/")[0])):
            for other in (path.parent / text, path.parent / f"{text}.yaml"):
                if other.is_file():
                    return _with_bases(other, seen)
    return seen


def study_files(study: str) -> tuple[str, dict[str, Path]]:
    """Return how the job names the study, and the files that it needs beside the code.

    Response tables are named relative to the folder that one runs in, so they keep their place.
    """
    path = study_path(study)
    check_study(path)
    read = _with_bases(path, {})
    root = Path(os.path.commonpath([p.parent for p in read]))
    found = {f"{STUDY_FOLDER}/{p.relative_to(root).as_posix()}": p for p in read}
    for text in {text for value in read.values() for text in _strings(value)}:
        table = Path(text)
        if table.suffix != ".csv" or table.is_absolute():
            continue
        if ".." in table.parts:
            raise UserError(
                f"{path}: found response table {text!r}, expected a path below this folder, or an "
                "absolute one on storage that all nodes share"
            )
        if table.is_file():
            found[table.as_posix()] = table
    return f"{STUDY_FOLDER}/{path.resolve().relative_to(root).as_posix()}", found


def write_package(folder: Path, files: dict[str, Path]) -> str:
    """Write code and further files to an empty folder and return their hash; raise `UserError`."""
    wanted = {**code_files(), **files}
    size = sum(path.stat().st_size for path in wanted.values())
    if size > LIMIT_BYTES:
        large = max(wanted, key=lambda place: wanted[place].stat().st_size)
        raise UserError(
            f"the code to submit has {size / 2**20:.0f} MiB, expected at most "
            f"{LIMIT_BYTES / 2**20:.0f}; the largest file is {wanted[large]}: move it elsewhere"
        )
    digest = hashlib.sha256()
    for place, path in sorted(wanted.items()):
        target = folder / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        digest.update(f"{place}:{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    (folder / "mhiflab" / "submitted.json").write_text(
        json.dumps(git_provenance()), encoding="utf-8"
    )
    # The version is asked of the distribution, which nodes need not have installed.
    found = distribution("mhiflab")
    about = folder / f"mhiflab-{found.version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(found.read_text("METADATA") or "", encoding="utf-8")
    return digest.hexdigest()
