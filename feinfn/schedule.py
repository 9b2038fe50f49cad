"""What each step of training does by rule: its patches, learning rate and weight average."""

import math
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from feinfn.config import TrainConfig

EMA_START = 100
"""Iterations before the weight average starts to lag (released recipe: update_after_step)."""


def world() -> tuple[int, int]:
    """Return (rank, number of workers) of the process group, (0, 1) without one."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def learning_rate(config: TrainConfig, epoch: int) -> float:
    """Return the rate of an epoch counted from 0: linear warm-up, then half a cosine."""
    if epoch < config.warmup_epochs:
        return config.lr * (0.1 + 0.9 * epoch / config.warmup_epochs)
    span = max(config.epochs - config.warmup_epochs, 1)
    phase = (epoch - config.warmup_epochs) / span
    return config.lr_final + (config.lr - config.lr_final) * 0.5 * (1 + math.cos(math.pi * phase))


def epoch_batches(patches: int, batch: int, seed: int, epoch: int) -> Iterator[list[int]]:
    """Yield this worker's part of each global batch; an incomplete last batch is left out."""
    rank, workers = world()
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(patches, generator=generator).tolist()
    for start in range(0, patches - batch + 1, batch):
        yield order[start : start + batch][rank::workers]


@torch.no_grad()
def ema_update(average: list[Tensor], weights: list[Tensor], decay: float, step: int) -> None:
    """Move the average towards the weights; the decay grows as 1 - (step - 100)^(-2/3)."""
    late = step - EMA_START
    now = 0.0 if late <= 1 else min(decay, 1 - late ** (-2 / 3))
    torch._foreach_lerp_(average, weights, 1 - now)
