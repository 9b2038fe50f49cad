"""Lock of a lab folder, which its driver holds."""

import fcntl
import time
from pathlib import Path
from typing import TextIO

from mhiflab.paths import Lab

PROBE_S = 0.5
"""Seconds for which a command that checks for a driver may itself hold the lock."""


def lock_file(lab: Lab) -> Path:
    """Return the file that a driver locks; its content names the driver."""
    return lab.root / "driver.lock"


def driver_at_work(lab: Lab) -> bool:
    """Return True if a driver holds the lab folder."""
    try:
        with lock_file(lab).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def lock(file: TextIO) -> None:
    """Lock a file for this process alone; raise `BlockingIOError` if another process holds it."""
    end = time.monotonic() + PROBE_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
        time.sleep(0.02)
