"""A training of a second or two, in this process or others, and comparisons of its states."""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from device import DEVICE, one_order_of_sums
from networks import NARROW

from feinfn.config import DataConfig, TrainConfig
from feinfn.data.pairs import ScenePairs
from feinfn.data.patches import Patches, Window
from feinfn.data.source import load_scene, resolve_data
from feinfn.errors import Preempted
from feinfn.files import STATE
from feinfn.methods.feinfn.model import FeINFN
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import Pair
from feinfn.training.checkpoint import parse_state, read_state
from feinfn.training.train import Report, train

CONFIG = TrainConfig(
    epochs=4,
    batch_size=6,
    patch_px=16,
    stride_px=16,
    sampling="random",
    augment=True,
    lr=1e-3,
    sam_weight=0.1,
    ema_decay=0.9,
    clip_norm=1.0,
)
STEPS = 4
"""Steps of an epoch."""
NOISY = replace(PROTOCOLS["cave_x4"], name="noisy", hsi_snr_db=30.0, msi_snr_db=35.0)
CPU = torch.device("cpu")
# A server that has imported torch once starts each process in a moment.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["feinfn.training.train"])


def feeds(config: TrainConfig = CONFIG, edge: int = 80) -> tuple[Patches, ScenePairs]:
    names = resolve_data(DataConfig())
    train, validation = (load_scene(names, part[0]) for part in (names.train, names.validation))
    cut = [replace(s, raw_SHW=s.raw_SHW[:, :edge, :edge]) for s in (train, validation)]
    return Patches(cut[:1], NOISY, config, DEVICE), ScenePairs(cut[1:], NOISY, NARROW, DEVICE)


def doubled(patches: Patches, windows: Sequence[Window]) -> Pair:
    """Return a batch in float64 that is the same in whatever shares it is taken.

    Patches are simulated in float32, where a matrix product of more images may round otherwise:
    taken one by one, they are the same numbers however many workers share them.
    """
    parts = [vars(patches.batch([window])) for window in windows]
    return Pair(*(torch.cat([part[name] for part in parts]).double() for name in parts[0]))


def start(
    folder: Path,
    tell: Callable[[tuple[int, dict[str, float]]], None],
    config: TrainConfig = CONFIG,
    **options: Any,
) -> FeINFN:
    """Train from the state in the folder; `tell` gets each epoch's number and metrics."""
    torch.set_num_threads(1)
    one_order_of_sums()
    patches, validation = feeds(config)
    torch.manual_seed(5)
    model = FeINFN(NARROW).to(DEVICE)

    def on_epoch(report: Report) -> None:
        metrics = {k: v for k, v in report.metrics.items() if k != "train_seconds"}
        tell((report.epoch, metrics))

    train(model, patches, validation, config, 5, folder, on_epoch, **options)
    return model


def after(steps: int) -> Callable[[], bool]:
    """Return what says yes when it is asked for the given time."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) == steps


def in_pieces(folder: Path, cuts: Sequence[int], **options: Any) -> list:
    """Train with a preemption after each number of steps, and return what all epochs told."""
    told: list = []
    for steps in cuts:
        try:
            start(folder, told.append, preempted=after(steps), **options)
        except Preempted:
            continue
        raise AssertionError("it was not preempted")
    start(folder, told.append, **options)
    return told


def state(folder: Path) -> dict[str, Any]:
    """Return the newest state in a folder, without the seconds it took."""
    path = folder / STATE
    found = parse_state(read_state(path), CPU, path)
    del found["progress"][2]
    return found


def same(a: Any, b: Any) -> bool:
    """Return whether two states are equal bit for bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def meeting() -> dist.TCPStore:
    """Return a store at a free port of its own, for processes that find each other by it.

    Were its port only looked for here, another process could take it before rank 0 does. A file
    store's destructor races with the other process's and can abort.
    """
    return dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)


def join(port: int, rank: int, workers: int) -> None:
    """Make this process part of a group of gloo, at the port of `meeting`.

    Waits of the group last longer than `spawn` lets a process live: one that waits for a lost
    partner, instead of being told by an error, is killed and ends with another code.
    """
    wait = timedelta(minutes=4)
    store = dist.TCPStore("127.0.0.1", port, is_master=False, timeout=wait)
    dist.init_process_group("gloo", store=store, timeout=wait, rank=rank, world_size=workers)


def joined(target: Callable, rank: int, workers: int, port: int, *args: Any) -> None:
    """Call the target inside a process group of gloo."""
    torch.set_num_threads(1)
    join(port, rank, workers)
    target(rank, *args)
    dist.barrier()
    dist.destroy_process_group()


def spawn(workers: int, target: Callable, *args: Any) -> list[int | None]:
    """Run `target(rank, *args)` in a group of processes, and return how each ended."""
    met = meeting()
    processes: list[BaseProcess] = [
        PROCESSES.Process(target=joined, args=(target, rank, workers, met.port, *args))
        for rank in range(workers)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
        process.kill()
        process.join()
    return [process.exitcode for process in processes]
