"""Trainer: the state of a training and its steps, saved and restored, and its validation.

Legend: B batch, S bands, H W rows and columns.
"""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from feinfn.config import TrainConfig, config_at
from feinfn.data.pairs import Images, StoredPairs
from feinfn.data.patches import Patches
from feinfn.errors import Preempted, UserError
from feinfn.evaluation import by_network, evaluate_method
from feinfn.files import BEST, STATE, DamagedError
from feinfn.methods.network import Network
from feinfn.methods.sensor import Sensor
from feinfn.methods.weights import check_weights, save_weights
from feinfn.metrics.label import CONVENTION
from feinfn.physics import stated
from feinfn.protocols.simulate import Batch, Pair
from feinfn.training.checkpoint import epochs_begun, newest_state, parse_state, save_state
from feinfn.training.losses import training_loss
from feinfn.training.schedule import batches, ema_update, learning_rate
from feinfn.training.workers import Workers

FORMAT = 1
"""Version of the state's content; raise it if states hold something else."""


Feed = Patches | StoredPairs
"""Source of training patches: windows of scenes, or prepared files."""


class Trainer:
    """Everything that changes during training, with its saving and restoring."""

    def __init__(
        self,
        model: Network,
        config: TrainConfig,
        seed: int,
        folder: Path,
        warn: Callable[[str], None] = warnings.warn,
    ) -> None:
        self.model, self.config, self.seed, self.folder = model, config, seed, folder
        self.warn = warn
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
        self.losses: list[Tensor] = []
        """Losses of the epoch's steps so far, each over the whole batch."""
        self.best = {"epoch": -1, "val_psnr": -math.inf}
        self.best_weights: dict[str, Tensor] = {}
        self.seconds = 0.0
        self.rng = torch.get_rng_state()
        self.consistent = True
        """False while a step changes weights, average and optimiser."""
        self.workers = Workers()
        first = self.workers.rank == 0
        # One worker reads for all, so that all see one state and damage is reported once.
        payload = self.workers.from_first(newest_state(folder / STATE, warn) if first else None)
        if payload is not None:
            self._restore(parse_state(payload, self.device, folder / STATE))
            if first:
                self.restore_best_file()
        self.network: nn.Module = model
        if self.workers.count > 1:
            self.network = DistributedDataParallel(model)

    def _spec(self) -> dict[str, Any]:
        sections = {"model": stated(self.model.config), "train": asdict(self.config)}
        flat = {f"{s}.{k}": v for s, fields in sections.items() for k, v in fields.items()}
        return {"format": FORMAT, **flat, "seed": self.seed}

    @staticmethod
    def _without_later_changes(spec: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
        """Return a spec without the changes that had no effect yet in a state."""
        begun = epochs_begun(state)
        changes = [c for c in spec.get("train.changes", ()) if c["after_epoch"] < begun]
        return {**spec, "train.changes": changes}

    def _state(self) -> dict[str, Any]:
        return {
            "spec": self._spec(),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "progress": [self.epoch, self.step, self.seconds],
            "losses": torch.stack(self.losses) if self.losses else torch.empty(0),
            "best": self.best,
            # After a crash, the file may hold best weights of a later epoch than the state's.
            "best_weights": self.best_weights,
            "rng": self.rng,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        specs = (state.get("spec", {}), self._spec())
        saved, expected = (self._without_later_changes(spec, state) for spec in specs)
        for key in expected | saved:
            if saved.get(key) != expected.get(key):
                raise UserError(
                    f"{self.folder / STATE}: {key}: found {saved.get(key)!r}, expected "
                    f"{expected.get(key)!r}: this state is of another training or version; train "
                    "in another folder, or move it away to start from the beginning"
                )
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.epoch, self.step, self.seconds = state["progress"]
        self.losses = list(state["losses"])
        self.best = state["best"]
        self.best_weights = {name: w.cpu() for name, w in state["best_weights"].items()}
        self.rng = state["rng"].cpu()
        torch.set_rng_state(self.rng)

    def restore_best_file(self) -> None:
        """Write the file of the best weights anew if it does not match this state.

        It may be damaged, which is reported to `warn`, or of a later epoch than the state, which
        will be trained again.
        """
        if not self.best_weights:
            return
        path = self.folder / BEST
        try:
            matches = check_weights(path, *self._best_file())
        except DamagedError as error:
            matches = False
            self.warn(f"{path} {error}; written again from the training state")
        if not matches:
            save_weights(path, *self._best_file())

    def _best_file(self) -> tuple[dict[str, Tensor], Any, dict[str, Any], Sensor | None]:
        return self.best_weights, self.model.config, self.best, self.model.sensor

    @property
    def epoch_config(self) -> TrainConfig:
        """Configuration of the current epoch."""
        return config_at(self.config, self.epoch)

    def train_epoch(
        self, patches: Feed, accumulate: int = 1, preempted: Callable[[], bool] = lambda: False
    ) -> dict[str, float]:
        """Run one epoch, or the rest of an interrupted one, and return loss, rate and seconds.

        Raises `UserError` if a loss was NaN or inf, before anything is saved, and `Preempted` after
        a step if `preempted` returned True on any worker.
        """
        started = time.perf_counter() - self.seconds
        config = self.epoch_config
        windows: Sequence[Any] = patches.windows(self.seed, self.epoch)
        steps = len(windows) // config.batch_size
        for chosen in batches(
            windows, config.batch_size, self.seed, self.epoch, done=len(self.losses)
        ):
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(config, self.epoch, len(self.losses) / steps)
                group["weight_decay"] = config.weight_decay
            loss = self._gradient(patches.batch(chosen), accumulate)
            self.consistent = False
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.weights, config.clip_norm)
            self.optimizer.step()
            self.step += 1
            if config.ema_decay:
                ema_update(self.average, self.weights, config.ema_decay, self.step)
            self.losses.append(loss)
            self.rng = torch.get_rng_state()
            self.seconds = time.perf_counter() - started
            self.consistent = True
            if self.workers.any(preempted()):
                raise Preempted(
                    f"preempted after step {self.step} (epoch {self.epoch + 1}), whose state is "
                    "saved; run again to continue"
                )
        loss = self._finite_losses().mean()
        self.seconds = time.perf_counter() - started
        self.losses = []
        self.epoch += 1
        rate = learning_rate(config, self.epoch - 1, (steps - 1) / steps)
        return {"loss": loss.item(), "lr": rate, "train_seconds": self.seconds}

    def _gradient(self, pair: Pair, accumulate: int) -> Tensor:
        """Leave the gradient of the whole batch in the weights, and return the batch's loss.

        Losses are means over patches, so the mean over equal parts is the mean over all.
        """
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        micro_batches = list(zip(*(x.chunk(accumulate) for x in vars(pair).values()), strict=True))
        for i, tensors in enumerate(micro_batches, start=1):
            micro_batch = type(pair)(*tensors)
            network: Any = self.network
            # Workers exchange gradients once, with the last micro-batch.
            keep_local = i < len(micro_batches) and self.workers.count > 1
            with network.no_sync() if keep_local else nullcontext():
                bfloat16 = self.config.precision == "bfloat16"
                with torch.autocast(self.device.type, torch.bfloat16, bfloat16):
                    fused_BSHW = network(*micro_batch.inputs())
                fused_BSHW = fused_BSHW.to(micro_batch.reference_BSHW.dtype)
                errors_B = micro_batch.base_error_B if isinstance(micro_batch, Batch) else None
                loss = training_loss(
                    self.epoch_config, fused_BSHW, micro_batch.reference_BSHW, errors_B
                )
                (loss / accumulate).backward()
            total = total + loss.detach() / accumulate
        return self.workers.mean(total)

    def _finite_losses(self) -> Tensor:
        # One transfer per epoch, because reading a loss inside the loop would stall a GPU.
        history = torch.stack(self.losses).cpu()
        bad = (~torch.isfinite(history)).nonzero()
        if len(bad):
            step = self.step - len(history) + int(bad[0]) + 1
            raise UserError(
                f"training diverged: the loss was {history[bad[0]].item()} at step {step} (epoch "
                f"{self.epoch + 1}); the best weights before it are kept; lower train.lr or set "
                "train.clip_norm"
            )
        return history

    def validate(self, validation: Images) -> dict[str, float]:
        """Evaluate the averaged weights (if any), and save them if their PSNR is the best yet."""
        raw = [w.detach().clone() for w in self.weights] if self.average else []
        with torch.no_grad():
            if self.average:
                torch._foreach_copy_(self.weights, self.average)
            evaluated = evaluate_method(by_network(self.model), validation)
            scores = [one.scores[CONVENTION] for one in evaluated]
            metrics = {f"val_{k}": sum(s[k] for s in scores) / len(scores) for k in scores[0]}
            if metrics["val_psnr"] > self.best["val_psnr"]:
                self.best = {"epoch": self.epoch - 1, "val_psnr": metrics["val_psnr"]}
                weights = self.model.state_dict()
                self.best_weights = {n: w.detach().cpu().clone() for n, w in weights.items()}
                save_weights(self.folder / BEST, *self._best_file())
            if self.average:
                torch._foreach_copy_(self.weights, raw)
        return metrics

    def save(self) -> None:
        """Write the complete state; the best weights are already on disk."""
        save_state(self.folder / STATE, self._state())

    def save_inside_epoch(self) -> None:
        """Write the state after the last step (rank 0); raise `UserError` if a loss was not finite.

        Nothing is written while a step is under way, because it may have changed a part of the
        state.
        """
        if self.losses:
            self._finite_losses()
        if self.workers.rank == 0 and self.consistent:
            self.save()
