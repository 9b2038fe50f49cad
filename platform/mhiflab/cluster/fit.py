"""Fit trials to the nodes of a cluster: pure functions over nodes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from feinfn.errors import UserError, require
from mhiflab.study.spec import Resources

UNIT = 10_000
"""Smallest parts of a resource in Ray, which counts in ten-thousandths."""


@dataclass(frozen=True)
class Node:
    """Living node and its resources."""

    name: str
    cpus: float
    gpus: float = 0.0
    gpu_gib: float | None = None
    """Memory of its smallest GPU; None if it was not queried."""
    id: str = ""


@dataclass(frozen=True)
class Fit:
    """Placement of trials with the same resources."""

    at_once: int
    """Number of trials that run at the same time."""
    resources: Resources
    """Resources that a trial requests, with a share of a GPU in place of its memory."""
    avoid: tuple[str, ...] = ()
    """Ids of the nodes that its workers avoid."""


def fit(resources: Resources, nodes: Sequence[Node]) -> Fit:
    """Return the placement of trials with these resources; raise `UserError` if not one fits.

    Workers are alike and may be spread over nodes, so filling node by node is exact. Trials without
    GPUs avoid nodes with GPUs if the other nodes hold at least one trial.
    """
    gpus = resources.gpus_per_worker
    require(
        gpus == int(gpus) or 1 / UNIT <= gpus < 1,
        "resources.gpus_per_worker",
        gpus,
        f"a whole number, or a share of one GPU of at least {1 / UNIT}",
    )
    request, usable = _shared_gpu(resources, nodes)
    if not request.gpus_per_worker:
        cpu_only = [node for node in usable if not node.gpus]
        usable = cpu_only if _at_once(request, cpu_only) else usable
    count = _at_once(request, usable)
    if not count:
        raise UserError(_too_large(request, usable))
    usable_ids = {node.id for node in usable}
    avoid = tuple(node.id for node in nodes if node.id not in usable_ids)
    return Fit(count, request, avoid)


def _shared_gpu(resources: Resources, nodes: Sequence[Node]) -> tuple[Resources, list[Node]]:
    """Return resources with a share of a GPU in place of its memory, and the nodes that fit.

    The smallest GPU that is large enough sets the share, so it suffices on every larger one. Raise
    `UserError` if no GPU is large enough.
    """
    memory_gib = resources.gpu_memory_gib
    if memory_gib is None:
        return resources, list(nodes)
    sizes = {node.name: node.gpu_gib for node in nodes if node.gpus and node.gpu_gib is not None}
    if not sizes:
        raise UserError(
            f"resources.gpu_memory_gib: found {memory_gib:g}, but no node has a GPU; leave it out "
            "to train on CPUs, or add a node with a GPU"
        )
    large = {name: gib for name, gib in sizes.items() if gib >= memory_gib}
    if not large:
        raise UserError(
            f"resources.gpu_memory_gib: found {memory_gib:g}, but the largest GPU has "
            f"{max(sizes.values()):.1f} GiB; lower it, or set resources.recompute: true and a "
            "smaller train.batch_size"
        )
    share = resources.gpus_per_worker
    if share < 1:
        # Rounded down to Ray's units, so that three thirds still fit on one GPU.
        share = max(UNIT // int(min(large.values()) // memory_gib), 1) / UNIT
    return (
        replace(resources, gpus_per_worker=share, gpu_memory_gib=None),
        [node for node in nodes if node.name in large],
    )


def _at_once(resources: Resources, nodes: Sequence[Node]) -> int:
    return sum(workers_on(node, resources) for node in nodes) // max(resources.workers, 1)


def workers_on(node: Node, resources: Resources) -> int:
    """Return the number of workers that fit on an empty node.

    A share of a GPU comes from a single GPU: three workers of 0.6 never fit on two GPUs.
    """
    by_cpus = _units(node.cpus) // _units(resources.cpus_per_worker)
    gpus = _units(resources.gpus_per_worker)
    if not gpus:
        return by_cpus
    whole = int(node.gpus)
    return min(by_cpus, whole * (UNIT // gpus) if gpus < UNIT else whole * UNIT // gpus)


def _units(amount: float) -> int:
    return round(amount * UNIT)


def _too_large(resources: Resources, nodes: Sequence[Node]) -> str:
    """Return an error's text: why not even one trial fits, and which resources would."""
    cpus, gpus = resources.cpus_per_worker, resources.gpus_per_worker
    largest = max(nodes, key=lambda n: (n.gpus, n.cpus) if gpus else (n.cpus, n.gpus))
    asks = f"workers: {resources.workers} of cpus_per_worker: {cpus:g}"
    asks += f" and gpus_per_worker: {gpus:g}" if gpus else ""
    has = f"{len(nodes)} node(s), the largest with {largest.cpus:g} CPUs and {largest.gpus:g} GPUs"
    most = min(cpus, max((n.cpus for n in nodes if n.gpus >= gpus), default=0.0))
    count = (
        sum(workers_on(n, replace(resources, cpus_per_worker=most)) for n in nodes) if most else 0
    )
    if count:
        fits = f"at most workers: {count} with cpus_per_worker: {most:g}"
    else:
        fits = f"at most gpus_per_worker: {largest.gpus:g}"
    return f"resources: one trial asks for {asks}, found {has}; would fit: {fits}; or add nodes"
