"""Termination of a trial's process: noticed before it ends, so that training can save its state.

Training runs in a thread, where no signal handler can be set, and Ray's worker sets its own in the
main thread when everything else is up. So `install`, which Ray calls at a worker's start, wraps
whatever handler Ray sets later.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from feinfn.errors import Preempted

_asked = threading.Event()

_deferring = threading.Event()


def preempted() -> bool:
    """Return whether this process was asked to end (SIGTERM)."""
    return _asked.is_set()


def install() -> None:
    """Let `deferred` hold back Ray's own handling of SIGTERM; for `worker_process_setup_hook`."""
    from ray._private import utils

    def set_wrapped(rays: Callable[[int, FrameType | None], Any]) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            _asked.set()
            if not _deferring.is_set():
                rays(number, frame)

        signal.signal(signal.SIGTERM, handle)

    utils.set_sigterm_handler = set_wrapped


@contextmanager
def deferred() -> Iterator[None]:
    """Keep SIGTERM from ending this process inside; raise `Preempted` after it if one came."""
    _deferring.set()
    try:
        yield
    finally:
        _deferring.clear()
    if preempted():
        raise Preempted("preempted after the last epoch, whose state is saved; run again to go on")
