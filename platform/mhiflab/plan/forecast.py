"""Forecasts from the record: device-hours, and the time until the last trial ends.

A trial takes as long per step and pixel as the nearest recorded runs took.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from mlflow.entities import Run

from feinfn.data.source import Survey
from mhiflab.cluster.connect import usable_cpus
from mhiflab.record import tag
from mhiflab.record.artifacts import FUSE_SECONDS
from mhiflab.study.settings import flatten
from mhiflab.study.spec import Resources, Spec, settings_of

RATE, STEP_FLOP, OVERHEAD = "train_flop_per_s", "step_flop", "overhead_s"
"""Metrics of a finished run: operations a second of one processor, operations of an optimiser step,
and seconds outside all steps."""

BACKWARD = 3.0
"""Operations of a training step in units of its forward pass."""


def steps_per_epoch(spec: Spec, survey: Survey) -> int:
    """Return the optimiser steps of an epoch, from the grid of patches."""
    train, patches = spec.train, 0
    for scene in survey.scenes:
        if scene.part == "train":
            size = scene.shape_SHW[1:]
            starts = [max(0, (n - train.patch_px) // train.stride_px + 1) for n in size]
            patches += math.prod(starts) if spec.data.inputs != "stored" else 1
    return max(1, patches // train.batch_size)


@dataclass(frozen=True)
class Speed:
    """Speed of a trial, recorded or under way."""

    kind: tuple[str, object]
    """`gpu` or `cpu`, and the model's name."""
    settings: frozenset[tuple[str, str]]
    """Names and texts of all settings."""
    pace_s: float
    """Seconds of one processor per unit of `Work.amount`."""
    overhead_s: float
    """Seconds that do not grow with it."""


@dataclass(frozen=True)
class Work:
    """A trial's computations, and what they run on."""

    spec: Spec
    resources: Resources
    survey: Survey

    @property
    def device(self) -> str:
        """`gpu` or `cpu`."""
        gpus = self.resources.gpus_per_worker or self.resources.gpu_memory_gib
        return "gpu" if gpus else "cpu"

    @property
    def processors(self) -> float:
        """Number of GPUs, or of CPUs if it uses no GPU."""
        gpus = self.resources.gpus_per_worker or bool(self.resources.gpu_memory_gib)
        return max(self.resources.workers, 1) * (gpus or self.resources.cpus_per_worker)

    @property
    def amount(self) -> int:
        """Steps of an epoch times pixels of a step; if nothing is trained, test images."""
        if not self.spec.trained:
            return sum(scene.part == "test" for scene in self.survey.scenes)
        train = self.spec.train
        return steps_per_epoch(self.spec, self.survey) * train.batch_size * train.patch_px**2

    def speed(self, epochs: int, seconds: float) -> Speed:
        """Return the speed of a training of which so many epochs took some seconds."""
        pace_s = seconds * self.processors / (epochs * self.amount)
        return _speed(self.device, flatten(settings_of(self.spec)), pace_s)

    def seconds(self, speeds: Iterable[Speed]) -> float | None:
        """Return the expected seconds from the nearest speeds; None if none is of such a model.

        The nearest have the most settings in common.
        """
        own = self.speed(1, 0.0)
        near: dict[int, list[Speed]] = {}
        for speed in speeds:
            if speed.kind == own.kind:
                near.setdefault(len(own.settings - speed.settings), []).append(speed)
        if not near:
            return None
        pace_s = median(speed.pace_s for speed in near[min(near)])
        overhead_s = median(speed.overhead_s for speed in near[min(near)])
        epochs = self.spec.train.epochs if self.spec.trained else 1
        return epochs * self.amount * pace_s / self.processors + overhead_s


def _speed(
    device: str, settings: Mapping[str, object], pace_s: float, overhead_s: float = 0.0
) -> Speed:
    texts = frozenset((name, str(value)) for name, value in settings.items())
    return Speed((device, settings.get("model.name")), texts, pace_s, overhead_s)


@dataclass(frozen=True)
class Forecast:
    """Expected cost of some trials."""

    seconds: dict[str, float]
    """Seconds by run key, for every trial with a forecast."""
    device_hours: float
    """CPU-hours, or GPU-hours of trials that use GPUs."""
    at_once: int
    """Number of trials that this machine's CPUs hold at once."""
    unknown: dict[str, Work]
    """Trials by run key that no speed is known of."""

    @property
    def line(self) -> str:
        """Forecast as a sentence, empty without trials."""
        if not self.seconds:
            return "Expected: not known yet" if self.unknown else ""
        total = sum(self.seconds.values())
        # An even spread over the slots, but never less than the longest trial.
        eta = clock(max(total / self.at_once, max(self.seconds.values())))
        rest = f"; {len(self.unknown)} not known yet" if self.unknown else ""
        cost = f"about {self.device_hours:.2g} device-hours"
        return f"Expected: {cost}, {eta} with {self.at_once} at once{rest}"


def forecast(works: Mapping[str, Work], speeds: Iterable[Speed]) -> Forecast:
    """Return the expected cost of trials by run key, from the speeds of others."""
    speeds = list(speeds)
    expected = {key: work.seconds(speeds) for key, work in works.items()}
    known = {key: seconds for key, seconds in expected.items() if seconds is not None}
    hours = sum(seconds * works[key].processors / 3600 for key, seconds in known.items())
    resources = [work.resources for work in works.values()]
    cpus = max((max(one.workers, 1) * one.cpus_per_worker for one in resources), default=1)
    unknown = {key: work for key, work in works.items() if key not in known}
    return Forecast(known, hours, max(1, int(usable_cpus() // cpus)), unknown)


def recorded_speeds(runs: Iterable[Run]) -> list[Speed]:
    """Return the speed of every run that recorded it."""
    speeds = []
    for run in runs:
        metrics, params = run.data.metrics, run.data.params
        pace_s = None if "epoch" in metrics else metrics.get(FUSE_SECONDS)
        if RATE in metrics:
            pixels = int(params["train.batch_size"]) * int(params["train.patch_px"]) ** 2
            pace_s = metrics[STEP_FLOP] / metrics[RATE] / pixels
        if pace_s is not None and tag.DEVICE in run.data.tags:
            device = run.data.tags[tag.DEVICE].split("/")[0]
            speeds.append(_speed(device, params, pace_s, metrics.get(OVERHEAD, 0.0)))
    return speeds


def speed_metrics(
    work: Work, flop_per_pixel: float, trained_s: float, wall_s: float, forecast_s: float | None
) -> dict[str, float]:
    """Return the metrics of a finished training's speed, which `recorded_speeds` reads.

    `flop_per_pixel` are those of a forward pass. `trained_s` and `wall_s` are the seconds of its
    steps and of the whole trial; `forecast_s` is the expected `wall_s`, None if unknown.
    """
    train = work.spec.train
    flop = BACKWARD * flop_per_pixel
    metrics = {
        RATE: flop / work.speed(train.epochs, trained_s).pace_s,
        STEP_FLOP: flop * train.batch_size * train.patch_px**2,
        OVERHEAD: max(0.0, wall_s - trained_s),
        "wall_s": wall_s,
        "device_hours": wall_s * work.processors / 3600,
    }
    if forecast_s is not None:
        metrics |= {"forecast_s": forecast_s, "forecast_error": wall_s / forecast_s - 1}
    return metrics


def clock(seconds: float) -> str:
    """Return a duration as a short text: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
