"""Code of a submitted job: both packages, the study, and the files that the study names."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from feinfn.errors import UserError
from mhiflab.cluster.code import code_folders, git_provenance
from mhiflab.paths import lock_file, study_path
from mhiflab.study.read import read_paper
from mhiflab.study.yaml_values import read_yaml

LIMIT_BYTES = 100 * 2**20
"""Largest job that Ray accepts."""

STUDY_FOLDER = "study"
"""Folder for the study file and the files that it is based on."""


def _strings(value: Any) -> Iterator[str]:
    """Yield every text inside a YAML value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _with_bases(path: Path, seen: dict[Path, dict[str, Any]]) -> dict[Path, dict[str, Any]]:
    """Return the content of a study file and of the files that its `from` leads to, by path.

    Shipped studies are left out, because the code contains them.
    """
    if path.resolve() in seen:
        return seen
    value = seen[path.resolve()] = read_yaml(path)
    base = value.get("base", value)
    name = base.get("from") if isinstance(base, dict) else None
    if isinstance(name, str):
        for text in filter(None, (name, name.rpartition("/")[0])):
            for other in (path.parent / text, path.parent / f"{text}.yaml"):
                if other.is_file():
                    return _with_bases(other, seen)
    return seen


def study_files(study: str) -> tuple[str, dict[str, Path]]:
    """Return the path of a study or paper inside the job, and the files it needs beside the code.

    Response tables keep their path, which is relative to the working folder. Raise `UserError` if
    there is no such study, or if a table lies outside this folder.
    """
    path = study_path(study)
    paper = read_paper(path)
    contents: dict[Path, dict[str, Any]] = {}
    for file in paper.files():
        _with_bases(file, contents)
    values = [paper.published, *(part.options.get("published") for part in paper.figures.values())]
    beside = [path, *(path.parent / value for value in values if value)]
    needed = {*contents, *(file.resolve() for file in beside if file.is_file())}
    root = Path(os.path.commonpath([p.parent for p in needed]))
    files = {f"{STUDY_FOLDER}/{p.relative_to(root).as_posix()}": p for p in sorted(needed)}
    for text in {text for value in contents.values() for text in _strings(value)}:
        table = Path(text)
        if table.suffix != ".csv" or table.is_absolute():
            continue
        if ".." in table.parts:
            raise UserError(
                f"{path}: found response table {text!r}, expected a path below this folder, or an "
                "absolute one on storage that all nodes share"
            )
        if table.is_file():
            files[table.as_posix()] = table
    return f"{STUDY_FOLDER}/{path.resolve().relative_to(root).as_posix()}", files


def _left_out(folder: str, names: list[str]) -> set[str]:
    """Return the names in a folder of code that are no code: hidden ones, caches, labs, links."""
    return {
        name
        for name in names
        if name.startswith(".")
        or name in ("__pycache__", "lab", "mlruns")
        or Path(folder, name).is_symlink()
    }


def write_package(folder: Path, files: dict[str, Path]) -> str:
    """Write the code and further files to an empty folder, and return their hash.

    Raise `UserError` if they are larger than `LIMIT_BYTES`.
    """
    for place, source in code_folders().items():
        shutil.copytree(source, folder / place, ignore=_left_out, dirs_exist_ok=True)
    for place, path in {**files, "mhiflab/requirements.lock": lock_file()}.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / place)
    digest, sizes = hashlib.sha256(), {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        place, content = path.relative_to(folder).as_posix(), path.read_bytes()
        digest.update(f"{place}:{hashlib.sha256(content).hexdigest()}\n".encode())
        sizes[place] = len(content)
    if sum(sizes.values()) > LIMIT_BYTES:
        raise UserError(
            f"the code to submit has {sum(sizes.values()) / 2**20:.0f} MiB, expected at most "
            f"{LIMIT_BYTES / 2**20:.0f}; the largest file is {max(sizes, key=sizes.__getitem__)}: "
            "move it elsewhere"
        )
    (folder / "mhiflab" / "submitted.json").write_text(
        json.dumps(git_provenance()), encoding="utf-8"
    )
    # The package's version comes from its metadata, and nodes may lack an installed package.
    installed = distribution("mhiflab")
    about = folder / f"mhiflab-{installed.version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(installed.read_text("METADATA") or "", encoding="utf-8")
    return digest.hexdigest()
