"""Several workers as far as one device shows them, and the laboratory if it is installed."""

import importlib.util
import json
import os
import subprocess
import sys
from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from experiments.bench.measure import inputs
from experiments.gpu.memory import fit
from experiments.gpu.part import Skipped, Task
from feinfn.config import TrainConfig
from feinfn.methods.feinfn.model import FeINFN
from feinfn.training.losses import training_loss

NEEDED = ("ray", "mlflow")


def ddp(task: Task) -> str:
    """Compare a gradient through a process group of one with that without any."""
    backend = "nccl" if task.on_gpu else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        model = FeINFN(task.config).to(task.device)
        alone = gradient(task, model, parts=1)
        shared: nn.Module = DistributedDataParallel(model)
        values = {
            "whole": gradient(task, shared, parts=1),
            "parts": gradient(task, shared, parts=2),
        }
        total = torch.ones(4, device=task.device)
        dist.all_reduce(total)
        dist.barrier()
        assert total.tolist() == [1.0] * 4
        worst = 0.0
        for name, value in values.items():
            difference = ((value - alone).norm() / alone.norm()).item()
            task.add(f"gradient, {name}", value=difference)
            worst = max(worst, difference)
        # The loop of training finds a group and needs nothing from it.
        losses = fit(task, 2)
        del shared
    finally:
        dist.destroy_process_group()
    task.add("losses in the group", value=str([round(loss, 5) for loss in losses]))
    if not worst <= 1e-3:
        raise AssertionError(f"gradients differ by {worst:.2g}")
    return f"one process over {backend}: gradients differ by {worst:.1g}"


def gradient(task: Task, network: nn.Module, parts: int) -> Tensor:
    """Return the gradient of one batch, exchanged once, with its last part."""
    *data, reference = inputs(4, 64 if task.on_gpu else 16, 4, task.device)
    network.zero_grad(set_to_none=True)
    chunks = list(zip(*(x.chunk(parts) for x in (*data, reference)), strict=True))
    for i, (*images, target) in enumerate(chunks, start=1):
        local = i < len(chunks) and isinstance(network, DistributedDataParallel)
        with network.no_sync() if local else nullcontext():  # type: ignore[operator]
            loss = training_loss(TrainConfig(), network(*images), target)
            (loss / parts).backward()
    grads = [w.grad.flatten() for w in network.parameters() if w.grad is not None]
    return torch.cat(grads).double().cpu()


def laboratory(task: Task) -> str:
    """Run the smoke variant of the demo on the device, with Ray and MLflow."""
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise Skipped("not installed")
    study = {
        "title": "The demo on this device",
        "base": {"from": "demo", "resources": {"workers": 1, "gpus_per_worker": int(task.on_gpu)}},
    }
    path = task.work / "on_this_device.yaml"
    # JSON is YAML.
    path.write_text(json.dumps(study))
    words = [sys.executable, "-m", "mhiflab", "run", str(path), "--smoke"]
    words += ["--lab", str(task.work / "lab")]
    environment = {**os.environ, "RAY_DISABLE_IMPORT_WARNING": "1"}
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError((done.stdout + done.stderr)[-1500:])
    return "the demo's smoke variant ran to its table"
