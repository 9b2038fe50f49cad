"""Folder of one run: what it records is on this disk before it goes anywhere else.

It holds `journal.jsonl`, one part of the run a line, and copies of the run's files. Every part is
on the disk before `append` returns. One process at a time writes the folder. An archive holds a
whole run as a single part.
"""

import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from feinfn.errors import UserError
from feinfn.fields import Settings
from feinfn.files import write_atomic
from mhiflab.exclusion import FileExclusion

LOCK_WAIT_S = 150.0
"""Seconds that a process waits for another to leave a folder; longer than one call of MLflow takes
to give up on a server that never answers (a minute) or on a database that is down (under two)."""

JOURNAL, FILES, LOCK = "journal.jsonl", "files", "lock"
"""Names in a run's folder: the journal, the copies of files, and the lock."""


@dataclass(frozen=True, kw_only=True)
class Part(Settings):
    """Some of what a run records; parts add up, and one that comes twice changes nothing."""

    name: str | None = None
    """Name of a new run; such a part comes first, and its tags are those of a new run."""
    started_ms: int | None = None
    """Start of a new run, in milliseconds since 1970."""
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Steps and values by metric."""
    datasets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Fields of MLflow's data sets by context."""
    files: dict[str, str] = field(default_factory=dict)
    """Texts by artifact."""
    copies: dict[str, str] = field(default_factory=dict)
    """Other files by artifact: their places in the run's folder."""
    status: str | None = None
    """Status of a run that ends with this part."""
    ended_ms: int | None = None

    def plain(self) -> dict[str, Any]:
        """Return the fields that hold something, as plain values."""
        return {key: value for key, value in asdict(self).items() if value not in (None, {})}


class RunFolder:
    """Opened folder of a run, held by a lock that ends with the process."""

    def __init__(self, folder: Path, wait_s: float = LOCK_WAIT_S) -> None:
        """Wait for the folder, create it if it is missing, and cut off a torn last line."""
        self.folder = folder
        self._lock = FileExclusion(folder / LOCK, wait_s)
        if not self._lock.take():
            raise UserError(
                f"{folder}: another process still writes the record of this run, after "
                f"{wait_s:g} s; wait for it or stop it, then run again"
            )
        self._journal = os.open(folder / JOURNAL, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        whole = (folder / JOURNAL).read_bytes().rfind(b"\n") + 1
        os.ftruncate(self._journal, whole)
        _sync_folder(folder)

    def append(self, part: Part) -> None:
        """Write one part to the disk; raise `UserError` if the disk refuses it."""
        size = os.fstat(self._journal).st_size
        line = json.dumps(part.plain(), sort_keys=True).encode() + b"\n"
        try:
            while line:
                line = line[os.write(self._journal, line) :]
            os.fsync(self._journal)
        except OSError as error:
            os.ftruncate(self._journal, size)
            raise UserError(
                f"{self.folder / JOURNAL}: cannot be written ({error}); free space on this disk or "
                "choose another folder with --lab"
            ) from None

    def keep(self, path: Path, artifact: str) -> None:
        """Copy a file into the folder, whole or not at all, in place of an earlier one."""

        def copy(partial: Path) -> None:
            shutil.copyfile(path, partial)
            with partial.open("rb") as file:
                os.fsync(file.fileno())

        target = self.folder / FILES / artifact
        write_atomic(target, copy)
        for folder in target.parents:
            _sync_folder(folder)
            if folder == self.folder:
                break

    def parts(self, start: int = 0) -> list[tuple[Part, int]]:
        """Return the parts from a byte on, each with the byte at which it ends.

        Raise `UserError` if a line is damaged.
        """
        with (self.folder / JOURNAL).open("rb") as file:
            file.seek(start)
            lines = file.read().split(b"\n")[:-1]
        parts = []
        for line in lines:
            try:
                part = read_part(json.loads(line))
            except (ValueError, TypeError, KeyError):
                raise UserError(
                    f"{self.folder / JOURNAL}: found a damaged line at byte {start}, expected JSON;"
                    " restore the file, or delete this folder to give up what it holds"
                ) from None
            start += len(line) + 1
            parts.append((part, start))
        return parts

    def remove(self) -> None:
        """Delete the folder.

        The journal goes first, so that an interruption leaves nothing to apply. The lock goes last:
        from then on another process may hold the folder, and keeps it.
        """
        (self.folder / JOURNAL).unlink()
        shutil.rmtree(self.folder / FILES, ignore_errors=True)
        (self.folder / LOCK).unlink()
        with suppress(OSError):
            self.folder.rmdir()

    def close(self) -> None:
        """Release the folder for other processes."""
        os.close(self._journal)
        self._lock.give_back()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_part(entry: Mapping[str, Any]) -> Part:
    """Return a part from a line of a journal, also as earlier versions wrote it.

    Raise `TypeError` or `KeyError` if it is none.
    """
    if "op" not in entry:
        return Part(**entry)
    op = entry["op"]
    if op == "start":
        tags = entry["tags"] | entry["identity"]
        return Part(name=entry["name"], started_ms=entry["ms"], tags=tags)
    if op == "batch":
        step = entry.get("step", 0)
        metrics = {name: [(step, value)] for name, value in entry.get("metrics", {}).items()}
        return Part(metrics=metrics, params=entry.get("params", {}), tags=entry.get("tags", {}))
    if op == "inputs":
        return Part(datasets=entry["datasets"])
    if op == "file":
        artifact = f"{entry['folder']}/{entry['file'].partition('/')[2]}".lstrip("/")
        return Part(copies={artifact: entry["file"]})
    return Part(status=entry["status"], ended_ms=entry["ms"])
