"""The cluster: connect or start one here, and see what fits on it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from feinfn.errors import UserError
from mhiflab.environment import ENVIRONMENT
from mhiflab.spec import Resources

DRIVER_CPUS = 0.01
"""CPU share of a trial that only waits for its workers: if waiting trials held whole CPUs, their
workers could never start."""


def held_by_trial(wanted: Resources) -> tuple[float, float]:
    """Return the CPUs and GPUs that one trial holds while it trains."""
    count = max(wanted.workers, 1)
    return count * wanted.cpus_per_worker, count * wanted.gpus_per_worker


def concurrency(wanted: Resources, cluster: dict[str, float]) -> int:
    """Return how many such trials run at once; raise `UserError` where not even one fits."""
    cpus, gpus = held_by_trial(wanted)
    have_cpus, have_gpus = cluster.get("CPU", 0.0), cluster.get("GPU", 0.0)
    if cpus > have_cpus or gpus > have_gpus:
        raise UserError(
            f"resources: one trial asks for {cpus:g} CPUs and {gpus:g} GPUs "
            f"(workers: {wanted.workers}), but the cluster has {have_cpus:g} and {have_gpus:g}; "
            "lower resources.workers or the shares per worker, or add nodes"
        )
    fits = int(have_cpus // cpus)
    return min(fits, int(have_gpus // gpus)) if gpus else fits


def _usable_cpus() -> int:
    """Return the CPUs this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quieten_raylet() -> None:
    """Drop the raylet's hint that many workers were started; its other messages stay.

    A trial with Ray Train workers has four processes or more, most of them waiting, so the hint
    always comes on a small machine. Ray prints it whatever `log_to_driver` says.
    """
    from ray._private import worker

    show = worker.print_to_stdstream

    def show_others(data: dict[str, Any], *args: Any, **options: Any) -> None:
        if not any("worker processes have been started" in line for line in data["lines"]):
            show(data, *args, **options)

    worker.print_to_stdstream = show_others


@contextmanager
def connected(dashboard: bool = False) -> Iterator[dict[str, float]]:
    """Connect to `RAY_ADDRESS`, or start Ray on this machine, and yield the cluster's resources.

    Without a dashboard a local Ray keeps the resources of Ray Train workers that were stopped.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    else:
        # Everything on loopback; works for a cluster of one machine only.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    _quieten_raylet()
    local = {} if address else {"num_cpus": max(2, _usable_cpus())}
    try:
        ray.init(
            address=address,
            include_dashboard=None if address else dashboard,
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=True,
            runtime_env={"env_vars": ENVIRONMENT},
            **local,
        )
    except ConnectionError as error:
        raise UserError(
            f"RAY_ADDRESS: no Ray cluster answers at {address!r} ({error}); start one, or unset "
            "RAY_ADDRESS to run on this machine"
        ) from None
    try:
        yield ray.cluster_resources()
    finally:
        ray.shutdown()
