"""Preemption: delay SIGTERM in a trial's process until training has saved its state.

Training runs in a thread, which cannot set a signal handler, and Ray's worker sets its own handler
in the main thread last of all. So `install`, which Ray calls when a worker starts, wraps the
handler that Ray sets later.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from feinfn.errors import Preempted

_sigterm_received = threading.Event()
_deferring = threading.Event()


def preempted() -> bool:
    """Return True if this process has received SIGTERM."""
    return _sigterm_received.is_set()


def install() -> None:
    """Make Ray's SIGTERM handler wait for `deferred`; called by `worker_process_setup_hook`."""
    from ray._private import utils

    def set_wrapped(ray_handler: Callable[[int, FrameType | None], Any]) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            _sigterm_received.set()
            if not _deferring.is_set():
                ray_handler(number, frame)

        signal.signal(signal.SIGTERM, handle)

    utils.set_sigterm_handler = set_wrapped


@contextmanager
def deferred() -> Iterator[None]:
    """Hold back SIGTERM inside this block; raise `Preempted` at its end if one came."""
    _deferring.set()
    try:
        yield
    finally:
        _deferring.clear()
    if preempted():
        raise Preempted("preempted after an epoch whose state is saved; run again to continue")
