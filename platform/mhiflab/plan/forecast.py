"""Forecasts from the record: device-hours, and the time until the last trial ends.

A trial takes as long per step and pixel, and per pixel of its test images, as the nearest recorded
runs took.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from mlflow.entities import Run

from feinfn.data.source import Survey
from mhiflab.cluster.connect import usable_cpus
from mhiflab.progress import Steps, span_s
from mhiflab.record import tag
from mhiflab.study.settings import flatten
from mhiflab.study.spec import Resources, Spec, settings_of

RATE, STEP_FLOP = "train_flop_per_s", "step_flop"
"""Metrics of a finished training: operations a second of one processor, and of a step."""

TEST_PACE, OVERHEAD = "test_s_per_mpx", "overhead_s"
"""Metrics of a finished run: seconds that its test took per million pixels, and all others outside
of steps. Earlier versions recorded both together."""

BACKWARD = 3.0
"""Operations of a training step in units of its forward pass."""


def steps_per_epoch(spec: Spec, survey: Survey) -> int:
    """Return the optimiser steps of an epoch, from the grid of patches."""
    train, patches = spec.train, 0
    for scene in survey.scenes:
        if scene.part == "train":
            size = scene.shape_SHW[1:]
            starts = [max(0, (n - train.patch_px) // train.stride_px + 1) for n in size]
            patches += math.prod(starts) if spec.data.inputs != "stored" else scene.images
    return max(1, patches // train.batch_size)


@dataclass(frozen=True)
class Speed:
    """Speed of a trial, recorded or under way."""

    kind: tuple[str, object]
    """`gpu` or `cpu`, and the model's name."""
    settings: frozenset[tuple[str, str]]
    """Names and texts of all settings."""
    pace_s: float = 0.0
    """Seconds of one processor per step and pixel of a training."""
    test_s: float | None = None
    """Seconds per pixel of the test images, which one process fuses and scores; None if the trial
    was not tested, or an earlier version counted them as overhead."""
    overhead_s: float = 0.0
    """Seconds that grow with neither."""


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
    def epoch_px(self) -> int:
        """Steps of an epoch times pixels of a step."""
        train = self.spec.train
        return steps_per_epoch(self.spec, self.survey) * train.batch_size * train.patch_px**2

    @property
    def test_images(self) -> int:
        """Number of test images."""
        return sum(scene.images for scene in self.survey.scenes if scene.part == "test")

    @property
    def test_px(self) -> int:
        """Pixels of all test images."""
        tests = (scene for scene in self.survey.scenes if scene.part == "test")
        return sum(scene.images * math.prod(scene.fused_size()) for scene in tests)

    def steps(self, test: bool = True) -> Steps:
        """Return its epochs, and the images of its test, for a bar."""
        return Steps(self.spec.train.epochs * self.spec.trained, self.test_images * test)

    def speed(self, epochs: int = 0, seconds: float = 0.0, test_s: float | None = None) -> Speed:
        """Return the speed of a trial of which so many epochs, or all tests, took some seconds."""
        pace_s = seconds * self.processors / (epochs * self.epoch_px) if epochs else 0.0
        per_pixel = None if test_s is None else test_s / self.test_px
        return _speed(self.device, flatten(settings_of(self.spec)), pace_s, per_pixel)

    def seconds(self, speeds: Iterable[Speed]) -> float | None:
        """Return the expected seconds from the nearest speeds; None if none is of such a model.

        The nearest have the most settings in common.
        """
        own = self.speed()
        near: dict[int, list[Speed]] = {}
        for speed in speeds:
            if speed.kind == own.kind:
                near.setdefault(len(own.settings - speed.settings), []).append(speed)
        if not near:
            return None
        nearest = near[min(near)]
        pace_s = median(speed.pace_s for speed in nearest)
        epochs = self.spec.train.epochs if self.spec.trained else 0
        trained_s = epochs * self.epoch_px * pace_s / self.processors
        # Where tests count as overhead, or were not made, their share is not known.
        tested = [speed for speed in nearest if speed.test_s is not None] or nearest
        test_s = median(speed.test_s or 0.0 for speed in tested)
        return trained_s + self.test_px * test_s + median(speed.overhead_s for speed in tested)


def _speed(
    device: str,
    settings: Mapping[str, object],
    pace_s: float,
    test_s: float | None,
    overhead_s: float = 0.0,
) -> Speed:
    texts = frozenset((name, str(value)) for name, value in settings.items())
    return Speed((device, settings.get("model.name")), texts, pace_s, test_s, overhead_s)


@dataclass(frozen=True)
class Forecast:
    """Expected cost of some trials."""

    seconds: dict[str, float]
    """Seconds by run key, for every trial with a forecast."""
    device_hours: float
    """CPU-hours, or GPU-hours of trials that use GPUs."""
    slots: dict[str, int]
    """Number of trials like each, by run key, that this machine's CPUs hold at once."""
    unknown: dict[str, Work]
    """Trials by run key that no speed is known of."""

    @property
    def line(self) -> str:
        """Forecast as a sentence, empty without trials."""
        if not self.seconds:
            return "Expected: not known yet" if self.unknown else ""
        eta = clock(span_s(self.seconds, self.slots))
        counts = sorted({self.slots[key] for key in self.seconds})
        at_once = " or ".join(str(n) for n in counts)
        rest = f"; {len(self.unknown)} not known yet" if self.unknown else ""
        cost = f"about {self.device_hours:.2g} device-hours"
        return f"Expected: {cost}, {eta} with {at_once} at once{rest}"


def forecast(works: Mapping[str, Work], speeds: Iterable[Speed]) -> Forecast:
    """Return the expected cost of trials by run key, from the speeds of others."""
    speeds = list(speeds)
    expected = {key: work.seconds(speeds) for key, work in works.items()}
    known = {key: seconds for key, seconds in expected.items() if seconds is not None}
    hours = sum(seconds * works[key].processors / 3600 for key, seconds in known.items())
    unknown = {key: work for key, work in works.items() if key not in known}
    return Forecast(
        known, hours, {key: _slots(one.resources) for key, one in works.items()}, unknown
    )


def _slots(resources: Resources) -> int:
    return max(1, int(usable_cpus() // (max(resources.workers, 1) * resources.cpus_per_worker)))


def recorded_speeds(runs: Iterable[Run]) -> list[Speed]:
    """Return the speed of every run that recorded it."""
    speeds = []
    for run in runs:
        metrics, params = run.data.metrics, run.data.params
        # A training that was lost before its test has no rate.
        known = RATE in metrics or (TEST_PACE in metrics and "epoch" not in metrics)
        if known and tag.DEVICE in run.data.tags:
            pace_s = 0.0
            if RATE in metrics:
                pixels = int(params["train.batch_size"]) * int(params["train.patch_px"]) ** 2
                pace_s = metrics[STEP_FLOP] / metrics[RATE] / pixels
            test_s = metrics[TEST_PACE] / 1e6 if TEST_PACE in metrics else None
            device = run.data.tags[tag.DEVICE].split("/")[0]
            speeds.append(_speed(device, params, pace_s, test_s, metrics.get(OVERHEAD, 0.0)))
    return speeds


def pace_of_test(work: Work, test_s: float) -> dict[str, float]:
    """Return the metric of a test that took some seconds, which `recorded_speeds` reads."""
    return {TEST_PACE: test_s / work.test_px * 1e6}


def speed_metrics(
    work: Work,
    flop_per_pixel: float,
    trained_s: float,
    test_s: float,
    wall_s: float,
    forecast_s: float | None,
) -> dict[str, float]:
    """Return the metrics of a finished trial's speed, which `recorded_speeds` reads.

    `flop_per_pixel` are those of a forward pass. `trained_s` and `test_s` are the seconds of its
    steps and of its test (see `pace_of_test`), 0 without them, and `wall_s` those of the whole
    trial; `forecast_s` is the expected `wall_s`, None if unknown.
    """
    metrics = {
        OVERHEAD: max(0.0, wall_s - trained_s - test_s),
        "wall_s": wall_s,
        "device_hours": wall_s * work.processors / 3600,
    }
    if trained_s:
        train, flop = work.spec.train, BACKWARD * flop_per_pixel
        metrics[RATE] = flop / work.speed(train.epochs, trained_s).pace_s
        metrics[STEP_FLOP] = flop * train.batch_size * train.patch_px**2
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
