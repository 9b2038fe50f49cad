"""What all tests share."""

import os
import signal

import pytest

# Before torch is loaded, and for every process a test starts: threads of one process that wait for
# each other on a core which another test uses made a training of 9 s take more than 300 s.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_reaches_children() -> None:
    """Let Ctrl-C through: what a script starts in its background ignores it, and so do children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
