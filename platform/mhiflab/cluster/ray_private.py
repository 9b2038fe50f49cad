"""Parts of Ray that are not its public interface: all that this laboratory uses are named here.

The hook of worker processes and what it serves, delayed SIGTERM, are here too.
A test checks that they exist in the pinned version. Ray is imported inside the functions, because
the hook of every worker process comes by here, and Ray Train takes seconds to load.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

from feinfn.errors import Preempted
from mhiflab.environment import forget_malloc

TOKEN_REFUSED = 3
"""Exit code of `PROBE_PROGRAM` if the cluster refuses its token."""

PROBE_PROGRAM = """
import faulthandler, sys
from ray._raylet import GcsClient
from ray.exceptions import AuthenticationError
faulthandler.dump_traceback_later(float(sys.argv[2]), exit=True)
try:
    GcsClient(address=sys.argv[1])
except AuthenticationError:
    sys.exit(3)
"""
"""Program that checks whether Ray answers at an address, without Ray's long retries or chatter. Its
time limit begins after Ray is loaded, which alone can take longer on a busy machine."""


def drop_worker_hints() -> None:
    """Drop the raylet's hint that many workers were started; keep its other messages.

    A trial with Ray Train workers has at least four processes, most of them waiting, so a small
    machine always gets the hint. Ray prints it whatever `log_to_driver` is.
    """
    from ray._private import worker

    show = worker.print_to_stdstream

    def show_others(data: dict[str, Any], *args: Any, **options: Any) -> None:
        if not any("worker processes have been started" in line for line in data["lines"]):
            show(data, *args, **options)

    worker.print_to_stdstream = show_others


def local_address() -> str | None:
    """Return HOST:PORT of the cluster that this machine is part of, None if there is none."""
    from ray._private.services import canonicalize_bootstrap_address

    try:
        return canonicalize_bootstrap_address("auto")
    except ConnectionError:
        return None


def dashboard_port() -> int | None:
    """Return the port of the connected cluster's dashboard, None if it has none."""
    from ray._private import worker

    return urlsplit(f"//{worker._global_node.webui_url or ''}").port


def log_folder() -> Path:
    """Return the folder of this node's Ray logs."""
    from ray._private.worker import global_worker

    return Path(global_worker.node.get_session_dir_path()) / "logs"


_sigterm_received, _deferring = threading.Event(), threading.Event()


def set_up_worker() -> None:
    """Prepare this worker process; Ray calls this when a worker starts."""
    forget_malloc()
    delay_sigterm()


def delay_sigterm() -> None:
    """Let SIGTERM in this worker process wait for `deferred`.

    Training runs in a thread, which cannot set a signal handler, and Ray's worker sets its own in
    the main thread last of all. So this wraps the handler that Ray sets later.
    """
    from ray._private import utils

    def set_wrapped(ray_handler: Callable[[int, FrameType | None], Any]) -> None:
        def handle(number: int, frame: FrameType | None) -> None:
            _sigterm_received.set()
            if not _deferring.is_set():
                ray_handler(number, frame)

        signal.signal(signal.SIGTERM, handle)

    utils.set_sigterm_handler = set_wrapped


def preempted() -> bool:
    """Return True if this process has received SIGTERM."""
    return _sigterm_received.is_set()


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


def free_unlaunched() -> Any:
    """Return a callback for Ray Train that frees a worker group whose training never started.

    If a worker dies between the start of its group and that of the training, Ray forgets the group
    together with its CPUs and GPUs, and the next group waits for them until the job ends.
    """
    from ray.train.v2._internal.execution.callback import ControllerCallback, WorkerGroupCallback

    class FreeUnlaunched(WorkerGroupCallback, ControllerCallback):
        unlaunched: Any = None

        def after_worker_group_start(self, worker_group: Any) -> None:
            self.unlaunched = worker_group.get_worker_group_state()

        def after_worker_group_training_start(self, worker_group: Any) -> None:
            # Ray manages it from here on.
            self.unlaunched = None

        def before_controller_execute_failure_decision(self, failure_decision: Any) -> None:
            if self.unlaunched is not None:
                self.unlaunched.shutdown()
                self.unlaunched = None

    return FreeUnlaunched()
