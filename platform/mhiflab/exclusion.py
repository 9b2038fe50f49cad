"""Exclusion: one holder at a time of a lab's folder, or of a run's journal.

`FileExclusion` is for processes that share a disk; the lease in `execute/driver.py`, taken in the
same way, is for those that share a server.
"""

import fcntl
import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mhiflab.paths import Lab

PROBE_S = 0.5
"""Seconds for which a command that asks for the holder may itself hold a lock."""


@dataclass(frozen=True)
class Holder:
    """A process that holds something."""

    pid: int
    host: str
    study: str
    token: str

    @property
    def description(self) -> str:
        """Process, host and study in words."""
        return f"process {self.pid} on {self.host}, study {self.study}"


UNNAMED = Holder(0, "an unknown host", "unknown", "")
"""Holder that has not written its name yet."""


class FileExclusion:
    """A locked file that names its holder; the system frees it when the holder's process ends.

    Its folder is created if it is missing.
    """

    def __init__(self, path: Path, wait_s: float, me: Holder | None = None) -> None:
        """Wait for `wait_s` seconds in `take`; without `me` the file names nobody."""
        self.path, self.wait_s, self.me = path, wait_s, me
        # Not bound to a thread: another one may give back what this one took.
        self._lock = FileLock(path, thread_local=False, poll_interval=0.02, fallback_to_soft=False)

    def take(self) -> bool:
        """Take it and return True, or return False if another process holds it."""
        deadline = time.monotonic() + self.wait_s
        while True:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._lock.acquire(timeout=max(0.0, deadline - time.monotonic()))
                break
            except Timeout:
                return False
            except (FileNotFoundError, FileExistsError):
                # The process that held the folder removed it meanwhile.
                if self.path.parent.is_file():
                    raise
        if self.me:
            self.path.write_text(json.dumps(asdict(self.me)), encoding="utf-8")
        return True

    def give_back(self) -> None:
        """Let others take it."""
        if self.me:
            # The folder may be gone.
            with suppress(OSError):
                self.path.write_text("", encoding="utf-8")
        self._lock.release()

    def holder(self) -> Holder | None:
        """Return the process that holds it, None if it is free."""
        try:
            with self.path.open("r", encoding="utf-8") as file:
                try:
                    # Shared, which filelock cannot do: several may look at once, and read only.
                    fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    return None
                except BlockingIOError:
                    return Holder(**json.loads(file.read()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return UNNAMED


def driver_lock(lab: Lab, me: Holder | None = None) -> FileExclusion:
    """Return the lock of a lab folder, which its driver holds."""
    return FileExclusion(lab.root / "driver.lock", PROBE_S, me)
