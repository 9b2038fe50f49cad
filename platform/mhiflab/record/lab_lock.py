"""The lock of a lab folder, which its driver holds."""

import fcntl
import time
from pathlib import Path
from typing import TextIO

from mhiflab.paths import Lab

LOOK_S = 0.5
"""For how long a lock may be that of a command which only looks whether a driver is at work."""


def lock_file(lab: Lab) -> Path:
    """Return the file that is locked; it says who holds it."""
    return lab.root / "driver.lock"


def driver_at_work(lab: Lab) -> bool:
    """Return whether a driver holds the lab folder."""
    try:
        with lock_file(lab).open("r") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def lock(file: TextIO) -> None:
    """Lock a file for this process alone; raise `BlockingIOError` where another keeps it."""
    end = time.monotonic() + LOOK_S
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise
        time.sleep(0.02)
