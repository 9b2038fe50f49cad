"""Memory: whole images within a bound, and a training that goes on after it ran out."""

import math
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from experiments.bench.bench import high_water_mib
from experiments.bench.measure import inputs, sync
from experiments.gpu.part import Task
from feinfn.config import DataConfig, TrainConfig
from feinfn.data.pairs import ScenePairs
from feinfn.data.patches import Patches
from feinfn.data.source import load_scene, resolve_data
from feinfn.errors import OutOfMemory, UserError
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.feinfn.strips import strips_within
from feinfn.protocols.named import PROTOCOLS
from feinfn.training.losses import training_loss
from feinfn.training.train import train

CLOSE = 2e-3
"""Largest difference between whole and bounded images: a phase may fall on the other side of the
negative real axis."""
BATCH = 4
"""Patches of a step that is to run out of memory."""


def memory(task: Task) -> str:
    """Fuse a whole image within the least bound, twice that, and without any."""
    px = 512 if task.on_gpu else 128
    *data, _ = inputs(1, px, 4, task.device)
    least = least_mib(task, px)
    found: dict[str, Tensor] = {}
    wrong = []
    # The least first, because a process's peak never falls again.
    for name, bound in {"least bound": least, "twice that": 2 * least, "no bound": None}.items():
        torch.manual_seed(0)
        model = FeINFN(task.config, bound).to(task.device).eval()
        with torch.inference_mode():
            found[name], peak, seconds = peak_of(task, model, data)
        limit = math.inf if bound is None else bound
        task.add(f"{px}x{px}, {name}", **{"bound MiB": bound, **peak, "seconds": seconds})
        if peak["peak MiB"] > limit:
            wrong.append(f"{name} of {bound} MiB took {peak['peak MiB']:.0f}")
    for name in ("least bound", "twice that"):
        difference = (found[name] - found["no bound"]).abs().max().item()
        task.add(f"{name}, difference", value=difference)
        if not difference <= CLOSE:
            wrong.append(f"{name} differs by {difference:.2g}")
    if wrong:
        raise AssertionError("; ".join(wrong))
    whole = task.rows()[f"{px}x{px}, no bound"]["peak MiB"]
    return f"a {px}x{px} image takes {whole:.0f} MiB, within a bound {least} MiB or less"


def least_mib(task: Task, px: int) -> int:
    """Return the least bound for an image, which the error for a smaller one states."""
    try:
        strips_within(1, task.config, (px // 4, px // 4), (px, px), 1)
    except UserError as error:
        found = re.search("at least ([0-9]+)", str(error))
        assert found is not None
        return int(found[1])
    raise AssertionError("a bound of 1 MiB was accepted")


def peak_of(
    task: Task, model: FeINFN, data: list[Tensor]
) -> tuple[Tensor, dict[str, float], float]:
    """Return the fused image, the peak memory above that at rest in MiB, and the seconds."""
    if task.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        rest = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    at_rest = high_water_mib()
    model(*data)
    sync(task.device)
    began = time.perf_counter()
    fused = model(*data)
    sync(task.device)
    seconds = time.perf_counter() - began
    if not task.on_gpu:
        return fused, {"peak MiB": high_water_mib() - at_rest}, seconds
    peaks = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    allocated, reserved = ((peak - low) / 2**20 for peak, low in zip(peaks, rest, strict=True))
    return fused, {"peak MiB": allocated, "reserved MiB": reserved}, seconds


def oom(task: Task) -> str:
    """Let a training run out of memory, and take its batches in more parts until they fit."""
    losses = fit(task, 1)
    whole = reserved_mib(task)
    fit(task, BATCH)
    parts = reserved_mib(task)
    limit = (whole + parts) / 2
    task.add("peak MiB", whole=whole, parts=parts, limit=limit)
    accumulate, told = 1, []
    with limited(task, limit):
        while True:
            try:
                found = fit(task, accumulate)
                break
            except OutOfMemory as error:
                told.append(str(error))
                task.add(f"accumulate {accumulate}", error=str(error)[:200])
                if accumulate == BATCH:
                    raise
            accumulate *= 2
    difference = max(abs(b / a - 1) for a, b in zip(losses, found, strict=True))
    task.add(f"accumulate {accumulate}", value=difference)
    if not told:
        raise AssertionError(f"{limit:.0f} MiB sufficed for what took {whole:.0f} before")
    if not difference <= 1e-2:
        raise AssertionError(f"losses in parts differ by {difference:.2g}")
    return f"{len(told)} times out of memory, then in {accumulate} parts; losses {difference:.1g}"


def fit(task: Task, accumulate: int) -> list[float]:
    """Train two epochs from the start and return their losses."""
    px = 64 if task.on_gpu else 16
    config = TrainConfig(
        epochs=2, batch_size=BATCH, patch_px=px, stride_px=px, clip_norm=1.0, validate_every=2
    )
    names, cave = resolve_data(DataConfig()), PROTOCOLS["cave_x4"]
    scene = load_scene(names, names.train[0]).window((0, 2 * px), (0, 2 * px))
    patches = Patches([scene], cave, config, task.device)
    pairs = ScenePairs([scene.window((0, px), (0, px))], cave, task.config, task.device)
    if task.on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(1)
    model, losses = FeINFN(task.config).to(task.device), []
    folder = fresh(task.work / "oom")
    train(
        model,
        patches,
        pairs,
        config,
        1,
        folder,
        lambda report: losses.append(report.metrics["loss"]),
        accumulate=accumulate,
    )
    return losses


def fresh(folder: Path) -> Path:
    """Return the folder without files."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    return folder


def reserved_mib(task: Task) -> float:
    """Return the peak memory that the allocator holds."""
    return torch.cuda.max_memory_reserved() / 2**20 if task.on_gpu else high_water_mib()


@contextmanager
def limited(task: Task, mib: float) -> Iterator[None]:
    """Leave this process so much memory of a GPU; on a processor, let whole batches fail."""
    if task.on_gpu:
        total = torch.cuda.get_device_properties(task.device).total_memory
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(mib * 2**20 / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return

    def too_large(config: TrainConfig, fused: Tensor, *others: Tensor) -> Tensor:
        if len(fused) > BATCH // 4:
            raise torch.OutOfMemoryError("out of memory, as if this were a small GPU")
        return training_loss(config, fused, *others)

    with mock.patch("feinfn.training.trainer.training_loss", too_large):
        yield
