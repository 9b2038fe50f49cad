"""Preemption: delay SIGTERM in a trial's process until training has saved its state.

Training runs in a thread, which cannot set a signal handler, and Ray's worker sets its own handler
in the main thread last of all. So `install`, which Ray calls when a worker starts, wraps the
handler that Ray sets later.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from feinfn.errors import Preempted
from mhiflab.cluster.ray_private import Handler, wrap_sigterm_handler

_sigterm_received = threading.Event()
_deferring = threading.Event()


def preempted() -> bool:
    """Return True if this process has received SIGTERM."""
    return _sigterm_received.is_set()


def install() -> None:
    """Make Ray's SIGTERM handler wait for `deferred`; called by `worker_process_setup_hook`."""

    def wrap(ray_handler: Handler) -> Handler:
        def handle(number: int, frame: FrameType | None) -> None:
            _sigterm_received.set()
            if not _deferring.is_set():
                ray_handler(number, frame)

        return handle

    wrap_sigterm_handler(wrap)


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
