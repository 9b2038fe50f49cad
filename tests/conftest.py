"""What all tests share."""

import signal

import pytest


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_reaches_children() -> None:
    """Let Ctrl-C through: what a script starts in its background ignores it, and so do children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
