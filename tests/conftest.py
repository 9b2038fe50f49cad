"""What all tests share."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# Before torch is loaded, and for every process a test starts: threads of one process that wait for
# each other on a core which another test uses made a training of 9 s take more than 300 s.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine may stall any example for longer than the usual 200 ms, and the drawing of it.
settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take longest: the last one that either worker runs is short."""
    items.sort(key=lambda item: not {"execute", "test_packaging.py"} & set(item.path.parts))


@pytest.fixture(autouse=True, scope="session")
def ctrl_c_reaches_children() -> None:
    """Let Ctrl-C through: what a script starts in its background ignores it, and so do children."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def same_draws() -> None:
    """Draw the same numbers in a test whichever tests came before it in this process."""
    import torch

    torch.manual_seed(0)
