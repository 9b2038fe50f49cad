"""The bench on this device: time and memory of each case and kind, and errors of each precision."""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from experiments.bench.bench import (
    CASES,
    COMPILED,
    COMPILED_HALF,
    EAGER,
    EXACT,
    HALF,
    OURS,
    PLAIN,
    TF32,
    autocast,
    field_costs,
    tf32,
)
from experiments.bench.measure import floors, in_turns, inputs, rates
from experiments.gpu.part import Task
from feinfn.methods.feinfn.model import FeINFN

ON_GPU = (
    "train x4",
    "forward 512",
    "forward 128",
    "train x8",
    "forward 256",
    "forward 64",
)
ON_PROCESSOR = ("forward 64", "forward 128")
COMPILED_CASES = ("train x4", "forward 512")
"""Cases in order of importance. A compiler takes up to a minute for each case and kind."""
ROUNDS = 10
LARGEST_ERRORS = {"float64": 1e-9, EXACT: 1e-3, OURS: 1e-2, TF32: 5e-2, HALF: 0.2}
"""Largest error of each precision, relative to the residual's norm. A phase at the negative real
axis may fall on either side, which moves single bins."""


def speed(task: Task) -> str:
    """Measure what is not measured yet, the most important first."""
    errors(task)
    kinds = (PLAIN, OURS, EXACT, TF32, HALF) if task.on_gpu else EAGER
    for case in ON_GPU if task.on_gpu else ON_PROCESSOR:
        measure(task, case, kinds)
    if task.on_gpu:
        once(task, "rate", rates_and_floors)
        once(task, "step with a field, in released steps", field_costs)
        for case in COMPILED_CASES:
            for kind in (COMPILED, COMPILED_HALF):
                measure(task, case, (OURS, kind))
    times = {name: row["ms"] for name, row in task.rows().items() if "ms" in row}
    plain = {name: times.get(f"{name.split(', ')[0]}, {PLAIN}", 0.0) for name in times}
    best = max(times, key=lambda name: plain[name] / times[name])
    faster = plain[best] / times[best]
    return f"{len(times)} rows, {best} {faster:.1f}x as fast as the plain network"


def rates_and_floors(device: torch.device) -> dict[str, float]:
    """Return the measured rates of the device, and the floors of a step that follow."""
    rate = rates(device, half=True)
    return rate | floors(rate, half=True)


def errors(task: Task) -> None:
    """Record how far each precision is from float64, and this float64 from a processor's."""
    if "error of float64" in task.rows():
        return
    torch.manual_seed(0)
    model = FeINFN(task.config).double().eval()
    *data, _ = (x.double() for x in inputs(1, 128 if task.on_gpu else 32, 4, torch.device("cpu")))

    @torch.inference_mode()
    def fused_in(kind: str, images: list[Tensor]) -> Tensor:
        with tf32(kind), autocast(kind, images[0].device):
            return model(*images)

    expected = fused_in("float64", data) - data[1]
    model.to(task.device)
    here = [x.to(task.device) for x in data]
    found = {"float64": fused_in("float64", here)}
    model.float()
    for kind in (EXACT, OURS, TF32, HALF) if task.on_gpu else (OURS, HALF):
        found[kind] = fused_in(kind, [x.float() for x in here])
    wrong = []
    for kind, fused in found.items():
        residual = fused.double().cpu() - data[1]
        error = ((residual - expected).norm() / expected.norm()).item()
        task.add(f"error of {kind}", value=error)
        if not error <= LARGEST_ERRORS[kind]:
            wrong.append(f"{kind} by {error:.2g}")
    if wrong:
        raise AssertionError(f"off from a processor's float64: {', '.join(wrong)}")


def measure(task: Task, case: str, kinds: Sequence[str]) -> None:
    """Record the time of a case by kind, in turns, and on a GPU its memory."""
    if f"{case}, {kinds[-1]}" in task.rows():
        return
    task.check_time(3)
    steps = {kind: CASES[case](kind, task.device) for kind in kinds}
    peaks: dict[str, Any] = {}
    for kind, step in list(steps.items()):
        try:
            step()
        except torch.OutOfMemoryError:
            task.add(f"{case}, {kind}", error="out of memory")
            del steps[kind]
            continue
        if task.on_gpu:
            at_rest = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            step()
            peaks[kind] = {"peak MiB": (torch.cuda.max_memory_allocated() - at_rest) / 2**20}
    seconds = in_turns(steps, ROUNDS if task.on_gpu else 1, task.device)
    for kind, value in seconds.items():
        task.add(f"{case}, {kind}", ms=value * 1e3, **peaks.get(kind, {}))
    del steps, step
    torch._dynamo.reset()
    gc.collect()


def once(task: Task, title: str, find: Callable[[torch.device], dict[str, float]]) -> None:
    """Record several values, unless they are there."""
    if not any(name.startswith(f"{title}: ") for name in task.rows()):
        task.check_time(8)
        for name, value in find(task.device).items():
            task.add(f"{title}: {name}", value=value)
