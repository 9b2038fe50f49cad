"""The training loop: one process or several, always the same batches in the same order.

A run is a function of (model, data, config, seed). The order of an epoch's patches follows from
seed and epoch alone, so a state needs only the epoch, the steps done in it and their losses.
"""

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from feinfn.config import ModelConfig, TrainConfig
from feinfn.data.pairs import Images
from feinfn.data.patches import Patches
from feinfn.errors import OutOfMemory, Preempted, UserError
from feinfn.methods.network import Network
from feinfn.training.precision import check_precision
from feinfn.training.trainer import Feed, Trainer
from feinfn.training.workers import world


@dataclass(frozen=True)
class Report:
    """Result of one finished epoch; `metrics` has `val_` entries if the epoch validated."""

    epoch: int
    epochs: int
    metrics: dict[str, float]


def check_batch(patches: Feed, config: TrainConfig, accumulate: int = 1) -> None:
    """Raise `UserError` if the patches fill no batch, or workers and parts cannot share one."""
    workers = world()[1]
    if config.batch_size % workers:
        raise UserError(
            f"train.batch_size: found {config.batch_size}, expected a multiple of the {workers} "
            "workers, which share every batch"
        )
    share = config.batch_size // workers
    if accumulate < 1 or share % accumulate:
        raise UserError(
            f"resources.accumulate: found {accumulate}, expected a divisor of the {share} patches "
            f"that each of {workers} workers has of a batch (train.batch_size {config.batch_size})"
        )
    if len(patches) < config.batch_size:
        raise UserError(
            f"train.batch_size: found {config.batch_size}, expected at most the {len(patches)} "
            "training patches; lower it or train.stride_px"
        )


def explain_oom(
    error: BaseException, model: Any, config: TrainConfig, accumulate: int
) -> OutOfMemory:
    """Return an error that states the demand on the accelerator's memory and the remedies.

    Remedies that `model`, the network's configuration, does not allow are left out.
    """
    workers = world()[1]
    share = config.batch_size // workers
    remedies = [f"raise resources.accumulate (up to {share})"]
    if isinstance(model, ModelConfig):
        remedies.append("set resources.recompute: true")
    remedies.append("lower train.patch_px")
    if isinstance(model, ModelConfig) and not model.needs_sensor:
        remedies.append("if whole images are validated, lower resources.memory_mib")
    return OutOfMemory(
        f"out of memory: found train.batch_size {config.batch_size} on {workers} workers, so "
        f"{share // accumulate} patches of {config.patch_px} px at once (resources.accumulate "
        f"{accumulate}), expected what fits; {', or '.join(remedies)} "
        f"({str(error).splitlines()[0]})"
    )


def train(
    model: Network,
    patches: Feed,
    validation: Images,
    config: TrainConfig,
    seed: int,
    folder: Path,
    on_epoch: Callable[[Report], None],
    *,
    preempted: Callable[[], bool] = lambda: False,
    accumulate: int = 1,
    checkpoint_every: int = 1,
    until: int | None = None,
    warn: Callable[[str], None] = warnings.warn,
) -> dict[str, float]:
    """Train from the state in `folder`, or from the start, and leave the best weights in `model`.

    Rank 0 validates, and writes `state.pt` (every `checkpoint_every` epochs and after the last) and
    `best.safetensors`. Every rank calls `on_epoch`. `preempted` is called after every step on every
    rank; if any returns True, the state is saved and `Preempted` is raised. The state is also saved
    if a worker is lost. Each worker computes its share of a batch in `accumulate` parts. After
    `until` epochs, if that is before the last, training pauses with its state saved. Rank 0 reports
    damaged files to `warn`.

    Returns the best epoch (from 0) and its validation PSNR. Raises `UserError` if the loss
    diverges, a state belongs to another training, or the CPU would emulate bfloat16, and
    `OutOfMemory` if a step does not fit.
    """
    check_batch(patches, config, accumulate)
    if isinstance(patches, Patches) and (patches.start is None) != (model.config.base == "lms"):
        raise UserError(
            f"model.base: found {model.config.base!r} with patches that have "
            f"{'no' if patches.start is None else 'another'} base, expected those of the network; "
            "give Patches the network's `start`, and None for lms"
        )
    trainer = Trainer(model, config, seed, folder, warn)
    first = trainer.workers.rank == 0
    end = config.epochs if until is None else min(until, config.epochs)
    if trainer.epoch < end:
        check_precision(config, trainer.device)
    try:
        while trainer.epoch < end:
            metrics = _epoch(trainer, patches, accumulate, preempted)
            last = trainer.epoch == config.epochs
            if first and (last or trainer.epoch % config.validate_every == 0):
                metrics |= trainer.validate(validation)
            # Report before saving: a crash in between repeats an epoch and leaves no gap.
            on_epoch(Report(trainer.epoch, config.epochs, metrics))
            if first and (trainer.epoch == end or trainer.epoch % checkpoint_every == 0):
                trainer.save()
        if first and trainer.epoch == config.epochs:
            trainer.restore_best_file()
            model.load_state_dict(trainer.best_weights)
        return trainer.best
    except RuntimeError as error:
        # The error's frames keep the failed step's tensors, for which a retry in this process has
        # no room, and the network that shares gradients.
        traceback.clear_frames(error.__traceback__)
        if not isinstance(error, torch.OutOfMemoryError):
            raise
        out_of_memory = explain_oom(error, model.config, config, accumulate)
    finally:
        # If freed after the process group has ended, the wrapped network would wait forever.
        trainer.network = model
        trainer.optimizer.zero_grad(set_to_none=True)
    del trainer
    # Raised outside the handler, because an error raised inside keeps the handled one alive.
    raise out_of_memory


def _epoch(
    trainer: Trainer, patches: Feed, accumulate: int, preempted: Callable[[], bool]
) -> dict[str, float]:
    """Run one epoch; if preemption or a lost worker ends it early, save the state inside it."""
    try:
        return trainer.train_epoch(patches, accumulate, preempted)
    except Preempted:
        trainer.save_inside_epoch()
        # Ray ends all workers when the first fails, so all wait until the state is saved.
        trainer.workers.any(True)
        raise
    except RuntimeError as error:
        # A lost worker (its collectives fail) or too little memory.
        try:
            trainer.save_inside_epoch()
        except (UserError, RuntimeError) as unsaved:
            error.add_note(f"The state inside the epoch was not saved: {unsaved}")
        raise
