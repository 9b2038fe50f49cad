"""Training steps by graphs and compilers against eager ones: the same numbers, and how fast."""

import gc
import shutil
import time
from typing import Any

import torch
from torch import Tensor, nn

from experiments.bench.measure import in_turns, inputs, sync
from experiments.gpu.part import Skipped, Task
from feinfn.config import TrainConfig
from feinfn.methods.feinfn.model import FeINFN
from feinfn.training.losses import training_loss

KINDS = ("graphed", "compiled", "compiled and graphed")
TOLERANCES = {"float32": 1e-2, "bfloat16": 0.2}
"""Largest difference of the first gradient, relative to its norm. A phase at the negative real axis
may fall on either side, which moves single bins."""
STEPS = 5
"""Steps that are compared, before those that are timed."""


class Steps:
    """Training steps of one kind, from one seed, on one batch."""

    def __init__(self, task: Task, kind: str, precision: str) -> None:
        torch.manual_seed(0)
        self.device, self.half = task.device, precision == "bfloat16"
        model = FeINFN(task.config).to(task.device)
        batch, side = (4, 64) if task.on_gpu else (2, 16)
        *self.data, self.reference = inputs(batch, side, 4, task.device)
        self.weights = list(model.parameters())
        self.optimizer = torch.optim.AdamW(self.weights, lr=2e-4, fused=True)
        self.gradient: Tensor | None = None
        self.network: Any = self._prepared(model, kind)

    def _autocast(self) -> torch.autocast:
        # Cached casts of weights would not belong to a graph.
        return torch.autocast(self.device.type, torch.bfloat16, self.half, cache_enabled=False)

    def _prepared(self, model: nn.Module, kind: str) -> Any:
        if kind == "graphed":
            with self._autocast():
                return torch.cuda.make_graphed_callables(model, tuple(self.data))
        if kind == "eager":
            return model
        mode = "reduce-overhead" if kind == KINDS[2] else "default"
        return torch.compile(model, fullgraph=True, dynamic=False, mode=mode)

    def __call__(self) -> float:
        """Take a step and return its loss."""
        with self._autocast():
            fused = self.network(*self.data)
        loss = training_loss(TrainConfig(), fused.float(), self.reference)
        loss.backward()
        if self.gradient is None:
            parts = [w.grad.flatten() for w in self.weights if w.grad is not None]
            self.gradient = torch.cat(parts).double().cpu()
        self.optimizer.step()
        # A graph overwrites its gradients, which must not be added to themselves.
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def measure(task: Task, kind: str, precision: str) -> tuple[Tensor, list[float], dict[str, Any]]:
    """Return the first gradient, the losses, and the seconds that this kind takes."""
    began = time.perf_counter()
    steps = Steps(task, kind, precision)
    losses = [steps()]
    sync(task.device)
    first_s = time.perf_counter() - began
    losses += [steps() for _ in range(STEPS - 1)]
    step_s = in_turns({kind: steps}, 20 if task.on_gpu else 3, task.device)[kind]
    assert steps.gradient is not None
    return steps.gradient, losses, {"step ms": step_s * 1e3, "first step s": first_s}


def compiled(task: Task) -> str:
    """Compare steps of every kind and precision with eager ones."""
    if not task.on_gpu and not (shutil.which("g++") or shutil.which("clang++")):
        raise Skipped("without a C++ compiler nothing is compiled for a processor")
    kinds = KINDS if task.on_gpu else KINDS[1:2]
    # Eager and compiled convolutions may round to TF32 in other places.
    torch.backends.cudnn.allow_tf32 = False
    wrong = []
    for precision, tolerance in TOLERANCES.items():
        if all(f"{kind}, {precision}" in task.rows() for kind in kinds):
            continue
        gradient, losses, seconds = measure(task, "eager", precision)
        task.add(f"eager, {precision}", **seconds)
        for kind in kinds:
            if f"{kind}, {precision}" in task.rows():
                continue
            task.check_time(5)
            other, other_losses, other_seconds = measure(task, kind, precision)
            difference = ((other - gradient).norm() / gradient.norm()).item()
            drift = max(abs(b / a - 1) for a, b in zip(losses, other_losses, strict=True))
            facts = {"gradient differs by": difference, f"{STEPS} losses by": drift}
            facts["faster"] = seconds["step ms"] / other_seconds["step ms"]
            task.add(f"{kind}, {precision}", **other_seconds, **facts)
            if not max(difference, drift) <= tolerance:
                wrong.append(f"{kind}, {precision}: {difference:.2g}, losses {drift:.2g}")
            torch._dynamo.reset()
            gc.collect()
    if wrong:
        raise AssertionError(f"other than eager: {'; '.join(wrong)}")
    rows = [row for row in task.rows().values() if "faster" in row]
    return f"{len(rows)} kinds equal eager, up to {max(r['faster'] for r in rows):.2f}x as fast"
