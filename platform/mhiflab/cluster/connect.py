"""Connect to a cluster, or start one on this machine, and list its nodes."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from feinfn.errors import UserError
from mhiflab.cluster.fit import Node
from mhiflab.cluster.ray_private import (
    PROBE_PROGRAM,
    TOKEN_REFUSED,
    drop_worker_hints,
    local_address,
)
from mhiflab.environment import worker_environment
from mhiflab.study.spec import Resources

DRIVER = {"node:__internal_head__": 0.0001}
"""Request of a trial that only waits for its workers: a place on the head. It takes no worker's CPU
there, so waiting trials never keep workers from starting, and it outlives every other node."""

ANSWER_S = 4.0
"""Seconds that a port, and then Ray behind it, may take to answer."""

LOADING_S = 120.0
"""Seconds that the probe's process may take to load Ray."""


@contextmanager
def connected(dashboard: bool = False) -> Iterator[list[Node]]:
    """Connect to `RAY_ADDRESS`, or start Ray on this machine, and yield the living nodes.

    Inside a submitted job Ray sets the address, and the job keeps its environment. Without a
    dashboard, a local Ray does not free the resources of Ray Train workers that were stopped.
    """
    address = _address()
    if not address:
        # Keep everything on loopback, which works for one machine only.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    drop_worker_hints()
    local = {} if address else {"num_cpus": max(2, usable_cpus()), "include_dashboard": dashboard}
    try:
        ray.init(
            address=address or "local",
            log_to_driver=False,
            logging_level="ERROR",
            configure_logging=True,
            runtime_env={
                "env_vars": worker_environment(),
                "worker_process_setup_hook": "mhiflab.cluster.ray_private.set_up_worker",
            },
            **local,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"RAY_ADDRESS: cannot join the cluster at {address!r} ({reason}); run on one of its "
            "nodes, or from outside: mhiflab submit STUDY --address http://HEAD:8265"
        ) from None
    try:
        yield [
            Node(
                name=node["NodeManagerAddress"],
                cpus=node["Resources"].get("CPU", 0.0),
                gpus=node["Resources"].get("GPU", 0.0),
                id=node["NodeID"],
            )
            for node in ray.nodes()
            if node["Alive"]
        ]
    finally:
        ray.shutdown()


def _address() -> str | None:
    """Return HOST:PORT of the cluster in `RAY_ADDRESS`, None to start one on this machine.

    Raise `UserError` if no cluster answers there.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address or address == "local":
        return None
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    if address == "auto":
        address = local_address()
        if address is None:
            raise UserError(
                "RAY_ADDRESS: found 'auto', but no Ray cluster runs on this machine; start one, or "
                "unset RAY_ADDRESS"
            )
    check_answers(address)
    return address


def check_answers(address: str) -> None:
    """Raise `UserError` within seconds if no Ray cluster answers or the token is wrong.

    Ray itself takes minutes and prints lines of its own, so another process tries first.
    """
    # Every address that Ray accepts has one of these forms.
    if "://" in address:
        raise UserError(
            f"RAY_ADDRESS: found {address!r}, expected HOST:PORT of a cluster that this machine is "
            "part of; from outside use: mhiflab submit STUDY --address http://HEAD:8265"
        )
    host, _, port = address.rpartition(":")
    reason = "no such port"
    if host and port.isdigit():
        try:
            with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S):
                reason = ""
        except (OSError, OverflowError) as error:
            reason = str(error)
    if not reason:
        code = probe_address(address, ANSWER_S)
        if code == TOKEN_REFUSED:
            raise UserError(
                f"RAY_ADDRESS: the cluster at {address!r} refuses this token; copy its token to "
                "~/.ray/auth_token, or name the file in RAY_AUTH_TOKEN_PATH"
            )
        reason = "the port is open, but it is not Ray's" if code else ""
    if reason:
        raise UserError(
            f"RAY_ADDRESS: no Ray cluster answers at {address!r} ({reason}); start one, or unset "
            "RAY_ADDRESS to run on this machine"
        )


def probe_address(
    address: str, seconds: float, environment: Mapping[str, str] | None = None
) -> int:
    """Return 0 if Ray answers, `TOKEN_REFUSED` if it refuses the token, else another number."""
    words = [sys.executable, "-c", PROBE_PROGRAM, address, str(seconds)]
    try:
        return subprocess.run(
            words, env=environment, timeout=LOADING_S + seconds, capture_output=True, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return 1


def usable_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def with_gpu_memory(nodes: list[Node]) -> list[Node]:
    """Return the nodes with the memory of their smallest GPU.

    Raise `UserError` if a node with GPUs does not report it.
    """
    sizes_gib = run_on_nodes(_smallest_gpu_gib, [node for node in nodes if node.gpus])
    for size in sizes_gib.values():
        if isinstance(size, Exception):
            raise UserError(
                f"resources.gpu_memory_gib: a node did not report its GPUs' memory ({size}); "
                "see mhiflab doctor"
            )
    return [replace(node, gpu_gib=sizes_gib.get(node.id)) for node in nodes]


def _smallest_gpu_gib() -> float | None:
    import torch

    sizes = [
        torch.cuda.get_device_properties(i).total_memory for i in range(torch.cuda.device_count())
    ]
    return min(sizes) / 2**30 if sizes else None


def run_on_nodes(
    task: Callable[..., Any], nodes: Iterable[Node], *args: Any, seconds: float = 120
) -> dict[str, Any]:
    """Run a function on each node, without waiting for free CPUs; return results by node id.

    If a node fails, or takes longer than `seconds`, its result is the exception.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    refs = {}
    for node in nodes:
        strategy = NodeAffinitySchedulingStrategy(node.id, soft=False)
        remote = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=strategy)(task)
        refs[node.id] = remote.remote(*args)
    results: dict[str, Any] = {}
    for node_id, ref in refs.items():
        try:
            results[node_id] = ray.get(ref, timeout=seconds)
        except Exception as error:
            results[node_id] = error
    return results


def trial_request(resources: Resources, avoid: Iterable[str]) -> Any:
    """Return Tune's request for one trial: a place for its driver, or for its whole training."""
    from ray.tune import PlacementGroupFactory

    labels = {} if resources.workers else selector(avoid)
    options = {"bundle_label_selector": [labels]} if labels else {}
    bundle = DRIVER if resources.workers else worker_request(resources)
    return PlacementGroupFactory([bundle], **options)


def worker_request(resources: Resources) -> dict[str, float]:
    """Return Ray's resources for each worker, or for a trial that trains in its own process."""
    amounts = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    return {name: amount for name, amount in amounts.items() if amount}


def selector(avoid: Iterable[str]) -> dict[str, str]:
    """Return Ray's label selector that avoids some nodes, empty if there are none."""
    ids = ",".join(avoid)
    return {"ray.io/node-id": f"!in({ids})"} if ids else {}
