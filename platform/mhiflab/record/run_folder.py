"""Folder of one run: what it records is on this disk before it goes anywhere else.

It holds `journal.jsonl`, one part of the run a line, and copies of the run's files. Every part is
on the disk before `append` returns. One process at a time writes the folder.
"""

import json
import os
import shutil
from contextlib import suppress
from pathlib import Path

from feinfn.errors import UserError
from feinfn.files import write_atomic
from mhiflab.record.exclusion import FileExclusion
from mhiflab.record.parts import Part, read_part

LOCK_WAIT_S = 150.0
"""Seconds that a process waits for another to leave a folder; longer than one call of MLflow takes
to give up on a server that never answers (a minute) or on a database that is down (under two)."""

JOURNAL, FILES, LOCK = "journal.jsonl", "files", "lock"
"""Names in a run's folder: the journal, the copies of files, and the lock."""


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
