"""How many trials fit on the nodes of a cluster at once, and where: pure functions over nodes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from feinfn.config import require
from feinfn.errors import UserError
from mhiflab.study.spec import Resources

UNIT = 10_000
"""Ray counts resources in ten-thousandths."""


@dataclass(frozen=True)
class Node:
    """What a living node offers."""

    name: str
    cpus: float
    gpus: float = 0.0
    gpu_gib: float | None = None
    """Memory of its smallest GPU; None where nobody asked."""
    id: str = ""


@dataclass(frozen=True)
class Fit:
    """Where trials of one shape go."""

    at_once: int
    """Trials that run at the same time."""
    resources: Resources
    """What a trial asks for, a memory hint turned into a share of a GPU."""
    avoid: tuple[str, ...] = ()
    """Ids of nodes that its workers stay away from."""


def held_by_trial(wanted: Resources) -> tuple[float, float]:
    """Return the CPUs and GPUs that one trial holds while it trains."""
    count = max(wanted.workers, 1)
    return count * wanted.cpus_per_worker, count * wanted.gpus_per_worker


def _units(amount: float) -> int:
    return round(amount * UNIT)


def workers_on(node: Node, wanted: Resources) -> int:
    """Return how many workers fit on an empty node.

    A share of a GPU comes from one GPU: of two, three workers of 0.6 never fit.
    """
    fits = _units(node.cpus) // _units(wanted.cpus_per_worker)
    gpus = _units(wanted.gpus_per_worker)
    if not gpus:
        return fits
    whole = int(node.gpus)
    return min(fits, whole * (UNIT // gpus) if gpus < UNIT else whole * UNIT // gpus)


def _at_once(wanted: Resources, nodes: Sequence[Node]) -> int:
    return sum(workers_on(node, wanted) for node in nodes) // max(wanted.workers, 1)


def _shared_gpu(wanted: Resources, nodes: Sequence[Node]) -> tuple[Resources, list[Node]]:
    """Return the request with its memory hint as a share of a GPU, and the nodes that can hold it.

    The smallest GPU that is large enough sets the share, so that it is enough on every larger one.
    """
    hint = wanted.gpu_memory_gib
    if hint is None:
        return wanted, list(nodes)
    known = {node.name: node.gpu_gib for node in nodes if node.gpus and node.gpu_gib is not None}
    if not known:
        raise UserError(
            f"resources.gpu_memory_gib: found {hint:g}, but no node has a GPU; leave it out to "
            "train on CPUs, or add a node with a GPU"
        )
    large = {name: gib for name, gib in known.items() if gib >= hint}
    if not large:
        raise UserError(
            f"resources.gpu_memory_gib: found {hint:g}, but the largest GPU has "
            f"{max(known.values()):.1f} GiB; lower it, or set resources.recompute: true and a "
            "smaller train.batch_size"
        )
    share = wanted.gpus_per_worker
    if share < 1:
        # Rounded down as Ray counts, so that three thirds still make one GPU.
        share = max(UNIT // int(min(large.values()) // hint), 1) / UNIT
    return (
        replace(wanted, gpus_per_worker=share, gpu_memory_gib=None),
        [node for node in nodes if node.name in large],
    )


def fit(wanted: Resources, nodes: Sequence[Node]) -> Fit:
    """Return how many such trials run at once and where; raise `UserError` where none fits.

    Workers are alike and may be spread over nodes, so filling node by node is exact. Without GPUs
    a trial keeps off nodes that have some, as long as the others hold at least one trial.
    """
    gpus = wanted.gpus_per_worker
    require(
        gpus == int(gpus) or 1 / UNIT <= gpus < 1,
        "resources.gpus_per_worker",
        gpus,
        f"a whole number, or a share of one GPU of at least {1 / UNIT}",
    )
    asked, usable = _shared_gpu(wanted, nodes)
    if not asked.gpus_per_worker:
        plain = [node for node in usable if not node.gpus]
        usable = plain if _at_once(asked, plain) else usable
    count = _at_once(asked, usable)
    if not count:
        raise UserError(_too_large(asked, usable))
    kept = {node.id for node in usable}
    avoid = tuple(node.id for node in nodes if node.id not in kept)
    return Fit(count, asked, avoid)


def _too_large(wanted: Resources, nodes: Sequence[Node]) -> str:
    """Return why not even one trial fits, and what would."""
    cpus, gpus = wanted.cpus_per_worker, wanted.gpus_per_worker
    largest = max(nodes, key=lambda n: (n.gpus, n.cpus) if gpus else (n.cpus, n.gpus))
    asks = f"workers: {wanted.workers} of cpus_per_worker: {cpus:g}"
    asks += f" and gpus_per_worker: {gpus:g}" if gpus else ""
    has = f"{len(nodes)} node(s), the largest with {largest.cpus:g} CPUs and {largest.gpus:g} GPUs"
    most = min(cpus, max((n.cpus for n in nodes if n.gpus >= gpus), default=0.0))
    count = sum(workers_on(n, replace(wanted, cpus_per_worker=most)) for n in nodes) if most else 0
    if count:
        fits = f"at most workers: {count} with cpus_per_worker: {most:g}"
    else:
        fits = f"at most gpus_per_worker: {largest.gpus:g}"
    return f"resources: one trial asks for {asks}, found {has}; would fit: {fits}; or add nodes"
