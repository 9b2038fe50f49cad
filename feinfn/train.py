"""The training loop: one process or several, always the same batches in the same order.

A run is a function of (model, data, config, seed): the order of an epoch's patches follows from
seed and epoch alone, so a state saved at the end of an epoch is complete.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from feinfn.checkpoint import load_state, save_state, save_weights
from feinfn.config import TrainConfig
from feinfn.errors import UserError
from feinfn.infer import evaluate_pair
from feinfn.losses import training_loss
from feinfn.model import FeINFN
from feinfn.protocols import Pair
from feinfn.schedule import batches, ema_update, learning_rate, world

STATE, BEST = "state.pt", "best.safetensors"


class Feed(Protocol):
    """Where training patches come from: windows of scenes, or prepared files."""

    ratio: int

    def __len__(self) -> int:
        """Return the patches of one epoch."""

    def windows(self, seed: int, epoch: int) -> Sequence[Any]:
        """Return what identifies the patches of an epoch."""

    def batch(self, windows: Sequence[Any], /) -> Pair:
        """Return some patches as one batch on the device."""


@dataclass(frozen=True)
class Report:
    """What one finished epoch has to tell; `metrics` has `val_` entries where it validated."""

    epoch: int
    epochs: int
    metrics: dict[str, float]


def check_batch(patches: Feed, config: TrainConfig) -> None:
    """Raise `UserError` where the patches cannot fill one batch or workers cannot share it."""
    workers = world()[1]
    if config.batch_size % workers:
        raise UserError(
            f"train.batch_size: found {config.batch_size}, expected a multiple of the {workers} "
            "workers, which share every batch"
        )
    if len(patches) < config.batch_size:
        raise UserError(
            f"train.batch_size: found {config.batch_size}, expected at most the {len(patches)} "
            "training patches; lower it or train.stride_px"
        )


class Trainer:
    """Everything that changes during training, and how it is saved and restored."""

    def __init__(self, model: FeINFN, config: TrainConfig, seed: int, folder: Path) -> None:
        self.model, self.config, self.seed, self.folder = model, config, seed, folder
        self.weights: list[Tensor] = list(model.parameters())
        self.average = [w.detach().clone() for w in self.weights] if config.ema_decay else []
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=config.lr,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.device = self.weights[0].device
        self.epoch = self.step = 0
        self.best = {"epoch": -1, "val_psnr": -math.inf}
        self.seconds = 0.0
        if (folder / STATE).is_file():
            self._restore(load_state(folder / STATE, self.device))
        distributed = world()[1] > 1
        self.network = DistributedDataParallel(model) if distributed else model

    def _state(self) -> dict[str, Any]:
        return {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "progress": [self.epoch, self.step, self.seconds],
            "best": self.best,
            "rng": torch.get_rng_state(),
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.seconds = state["progress"]
        self.best = state["best"]
        torch.set_rng_state(state["rng"].cpu())

    def train_epoch(self, patches: Feed) -> dict[str, float]:
        """Run one epoch; raise `UserError` if a loss was NaN or inf, before anything is saved."""
        started = time.perf_counter()
        config = self.config
        losses: list[Tensor] = []
        windows = patches.windows(self.seed, self.epoch)
        steps = len(windows) // config.batch_size
        for chosen in batches(windows, config.batch_size, self.seed, self.epoch):
            rate = learning_rate(config, self.epoch, len(losses) / steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            pair = patches.batch(chosen)
            with torch.autocast(self.device.type, torch.bfloat16, config.precision == "bfloat16"):
                fused_BSHW = self.network(*pair.inputs())
            loss = training_loss(config, fused_BSHW.float(), pair.reference_BSHW)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.weights, config.clip_norm)
            self.optimizer.step()
            self.step += 1
            if config.ema_decay:
                ema_update(self.average, self.weights, config.ema_decay, self.step)
            losses.append(loss.detach())
        # One transfer per epoch: reading a loss inside the loop would stall an accelerator.
        history = torch.stack(losses)
        if world()[1] > 1:
            dist.all_reduce(history)
            history /= world()[1]
        bad = (~torch.isfinite(history)).nonzero()
        if len(bad):
            step = self.step - len(losses) + int(bad[0]) + 1
            raise UserError(
                f"training diverged: the loss was {history[bad[0]].item()} at step {step} (epoch "
                f"{self.epoch + 1}); the best weights before it are kept; lower train.lr or set "
                "train.clip_norm"
            )
        self.epoch += 1
        self.seconds += time.perf_counter() - started
        return {"loss": history.mean().item(), "lr": rate, "train_seconds": self.seconds}

    def validate(self, validation: Sequence[Pair], ratio: int) -> dict[str, float]:
        """Evaluate the averaged weights (if any) and keep them if PSNR is the best so far."""
        raw = [w.detach().clone() for w in self.weights] if self.average else []
        with torch.no_grad():
            if self.average:
                torch._foreach_copy_(self.weights, self.average)
            scores = [evaluate_pair(self.model, pair, ratio) for pair in validation]
            metrics = {f"val_{k}": sum(s[k] for s in scores) / len(scores) for k in scores[0]}
            if metrics["val_psnr"] > self.best["val_psnr"]:
                self.best = {"epoch": self.epoch - 1, "val_psnr": metrics["val_psnr"]}
                weights = self.model.state_dict()
                save_weights(self.folder / BEST, weights, self.model.config, self.best)
            if self.average:
                torch._foreach_copy_(self.weights, raw)
        return metrics

    def save(self) -> None:
        """Write the complete state; the best weights were written before it."""
        save_state(self.folder / STATE, self._state())


def train(
    model: FeINFN,
    patches: Feed,
    validation: Sequence[Pair],
    config: TrainConfig,
    seed: int,
    folder: Path,
    on_epoch: Callable[[Report], None],
) -> dict[str, float]:
    """Train from the state in `folder`, or from the start, and leave the best weights in `model`.

    Rank 0 validates and writes `state.pt` and `best.safetensors`; every rank calls `on_epoch`.
    Returns the best epoch (from 0) and its validation PSNR; `UserError` if the loss diverges.
    """
    check_batch(patches, config)
    trainer = Trainer(model, config, seed, folder)
    while trainer.epoch < config.epochs:
        metrics = trainer.train_epoch(patches)
        last = trainer.epoch == config.epochs
        if world()[0] == 0 and (last or trainer.epoch % config.validate_every == 0):
            metrics |= trainer.validate(validation, patches.ratio)
        # Told before it is saved: a cut between the two repeats an epoch and leaves no gap.
        on_epoch(Report(trainer.epoch, config.epochs, metrics))
        if world()[0] == 0:
            trainer.save()
    if world()[0] == 0:
        model.load_state_dict(load_file(folder / BEST, device=str(trainer.device)))
    return trainer.best
