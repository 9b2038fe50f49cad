"""Schedule: batches, learning rate and weight average of each training step."""

import math
from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from feinfn.config import TrainConfig
from feinfn.data.patches import epoch_generator
from feinfn.training.workers import world

T = TypeVar("T")

EMA_START = 100
"""Steps before the weight average starts to lag (released recipe: update_after_step)."""


def learning_rate(config: TrainConfig, epoch: int, fraction: float = 0.0) -> float:
    """Return the learning rate at a fraction of an epoch, counted from 0.

    The periodic schedule has one rate per epoch.
    """
    if epoch < config.warmup_epochs:
        return config.lr * (0.1 + 0.9 * (epoch + fraction) / config.warmup_epochs)
    since_warmup = epoch - config.warmup_epochs
    if config.schedule == "periodic":
        progress = since_warmup / config.period_epochs
    else:
        progress = (since_warmup + fraction) / max(config.epochs - config.warmup_epochs, 1)
    remaining = (
        1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    )
    return config.lr_final + (config.lr - config.lr_final) * remaining


def batches(
    windows: Sequence[T], batch: int, seed: int, epoch: int, done: int = 0
) -> Iterator[list[T]]:
    """Yield this worker's share of each global batch of an epoch, in an order drawn from the seed.

    An incomplete last batch is left out. The first `done` batches are skipped, and the others stay
    the same.
    """
    rank, workers = world()
    order = torch.randperm(len(windows), generator=epoch_generator(seed, epoch)).tolist()
    for start in range(done * batch, len(windows) - batch + 1, batch):
        yield [windows[i] for i in order[start : start + batch][rank::workers]]


@torch.no_grad()
def ema_update(average: list[Tensor], weights: list[Tensor], decay: float, step: int) -> None:
    """Move the average towards the weights; the decay grows as 1 - (step - 100)^(-2/3)."""
    since_start = step - EMA_START
    current_decay = 0.0 if since_start <= 1 else min(decay, 1 - since_start ** (-2 / 3))
    torch._foreach_lerp_(average, weights, 1 - current_decay)
