"""Forecasts: device-hours, and the time until the last trial ends.

A trial's time is the number of its operations divided by the rate of recorded runs.
"""

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

import torch
from mlflow.entities import Run

from feinfn.config import ModelConfig
from feinfn.data.source import Survey
from feinfn.methods.cost import flop_per_pixel
from feinfn.methods.feinfn.model import FeINFN
from mhiflab.cluster.connect import usable_cpus
from mhiflab.cluster.fit import held_by_trial
from mhiflab.plan.plan import Entry
from mhiflab.study.spec import Resources, Spec


@dataclass(frozen=True)
class Forecast:
    """Expected cost of some trials."""

    seconds: dict[str, float]
    """Seconds by run key, for every trial with a forecast."""
    device_hours: float
    """CPU-hours, or GPU-hours of trials that use GPUs."""
    unknown: int
    """Number of trials without a forecast, because no run on a GPU is on record yet."""

    def line(self, at_once: int) -> str:
        """Return the forecast as a sentence, if `at_once` trials run at the same time."""
        if not self.seconds:
            return "" if not self.unknown else "no GPU run is on record yet: no forecast"
        total = sum(self.seconds.values())
        # An even spread over the slots, but never less than the longest trial.
        eta = max(total / at_once, max(self.seconds.values()))
        text = f"about {self.device_hours:.2g} device-hours, {clock(eta)} with {at_once} at once"
        return text + (f"; {self.unknown} on GPUs cannot be forecast yet" if self.unknown else "")


def forecast(entries: Sequence[Entry], runs: Sequence[Run]) -> Forecast:
    """Return the expected cost of trials, from the rates of recorded runs or one measured here."""
    speeds = run_speeds(runs)
    seconds: dict[str, float] = {}
    hours, unknown = 0.0, 0
    for entry in entries:
        assert entry.survey is not None, "a trial that is not blocked has a survey"
        trial_s = forecast_s(entry.trial.spec, entry.trial.resources, entry.survey, speeds)
        if trial_s is None:
            unknown += 1
            continue
        seconds[entry.key] = trial_s
        hours += trial_s * processor_count(entry.trial.resources) / 3600
    return Forecast(seconds, hours, unknown)


def slots_here(entries: Sequence[Entry]) -> int:
    """Return the number of these trials that this machine's CPUs hold at once, at least 1."""
    cpus = max(held_by_trial(entry.trial.resources)[0] for entry in entries)
    return max(1, int(usable_cpus() // cpus))


BACKWARD = 3.0
"""Operations of a training step in units of its forward pass."""

START_S = {False: 4.0, True: 10.0}
"""Seconds until a trial begins to work, False: in its own process, True: with Ray Train workers
(experiments/bench/overhead.py)."""

DEVICE = "mhiflab.device"
"""Tag of a run: the kind of device and process that its speed was measured on (`device_tag`)."""

RATE, STEP_FLOP = "train_flop_per_s", "step_flop"
WALL, OVERHEAD = "wall_s", "overhead_s"
FORECAST, FORECAST_ERROR = "forecast_s", "forecast_error"
DEVICE_HOURS = "device_hours"
"""Metrics of a finished run, as `speed_metrics` computes them."""

CLASSICAL_S_PER_PIXEL = 1e-4
"""Order of magnitude of the slowest classical method's time on one CPU."""

NEAREST = 5
"""Number of recorded runs, those nearest in size, whose median rate counts."""


def steps_per_epoch(spec: Spec, survey: Survey) -> int:
    """Return the optimiser steps of an epoch, from the grid of patches."""
    train, patches = spec.train, 0
    for scene in survey.scenes:
        if scene.part == "train":
            size = scene.shape_SHW[1:]
            starts = [max(0, (n - train.patch_px) // train.stride_px + 1) for n in size]
            patches += math.prod(starts) if spec.data.inputs != "stored" else 1
    return max(1, patches // train.batch_size)


def step_flop(spec: Spec) -> float:
    """Return the operations of one optimiser step, in FLOP."""
    pixels = spec.train.batch_size * spec.train.patch_px**2
    return BACKWARD * pixels * flop_per_pixel(spec.model, spec.protocol.ratio)


def trial_flop(spec: Spec, survey: Survey) -> float:
    """Return the operations of a trial, in FLOP: its steps, its validations and the test images."""
    train = spec.train
    pixels = {"train": 0, "validation": 0, "test": 0}
    for scene in survey.scenes:
        pixels[scene.part] += math.prod(scene.fused_size())
    validations = math.ceil(train.epochs / train.validate_every)
    fused_pixels = validations * pixels["validation"] + pixels["test"]
    fuse_flop = fused_pixels * flop_per_pixel(spec.model, spec.protocol.ratio)
    return train.epochs * steps_per_epoch(spec, survey) * step_flop(spec) + fuse_flop


def processor_count(resources: Resources) -> float:
    """Return the number of GPUs that a trial computes on, or of CPUs if it uses no GPU."""
    gpus = resources.gpus_per_worker or bool(resources.gpu_memory_gib)
    return max(resources.workers, 1) * (gpus or resources.cpus_per_worker)


def device_kind(resources: Resources) -> str:
    """Return `gpu` or `cpu`, the kind of processor that a trial computes on."""
    return "gpu" if resources.gpus_per_worker or resources.gpu_memory_gib else "cpu"


@cache
def calibrated_rate() -> float:
    """Return the FLOP per second of one CPU of this machine, measured in a few small steps."""
    model = FeINFN(ModelConfig(feat_dim=16, guide_dim=16, mlp_widths=(32, 16), decoder_width=16))
    config = model.config
    shapes = ((config.msi_bands, 32), (config.hsi_bands, 32), (config.hsi_bands, 8))
    inputs = [torch.rand(2, channels, px, px) for channels, px in shapes]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for _ in range(4):
        started = time.perf_counter()
        model(*inputs).mean().backward()
        times.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return BACKWARD * 2 * 32**2 * flop_per_pixel(config, 4) / min(times)


@dataclass(frozen=True)
class RunSpeed:
    """Speed of one finished run."""

    kind: str
    """`gpu` or `cpu`."""
    nested: bool
    """True if the run trained in Ray Train workers."""
    step_flop: float
    rate: float
    """FLOP per second of one processor."""
    overhead_s: float


def run_speeds(runs: Iterable[Run]) -> list[RunSpeed]:
    """Return the speed of every run that recorded it."""
    speeds = []
    for run in runs:
        metrics, tags = run.data.metrics, run.data.tags
        if {RATE, OVERHEAD, STEP_FLOP} <= set(metrics) and DEVICE in tags:
            kind, nested = tags[DEVICE].split("/")
            speed = RunSpeed(
                kind, nested == "workers", metrics[STEP_FLOP], metrics[RATE], metrics[OVERHEAD]
            )
            speeds.append(speed)
    return speeds


def device_tag(resources: Resources) -> str:
    """Return the value of the tag `DEVICE` for a trial, such as `cpu/workers`."""
    return f"{device_kind(resources)}/{'workers' if resources.workers else 'direct'}"


def forecast_s(
    spec: Spec, resources: Resources, survey: Survey, speeds: list[RunSpeed]
) -> float | None:
    """Return the expected seconds of a trial, None on GPUs if no GPU run is on record."""
    if not spec.trained:
        pixels = sum(math.prod(s.fused_size()) for s in survey.scenes if s.part == "test")
        return START_S[resources.workers > 0] + CLASSICAL_S_PER_PIXEL * pixels
    kind, nested, flop = device_kind(resources), resources.workers > 0, step_flop(spec)
    same_kind = [one for one in speeds if one.kind == kind]
    nearest = sorted(same_kind, key=lambda one: abs(math.log(one.step_flop / flop)))[:NEAREST]
    if not nearest and kind == "gpu":
        return None
    rate = median(one.rate for one in nearest) if nearest else calibrated_rate()
    overheads = [one.overhead_s for one in speeds if one.nested == nested]
    overhead = median(overheads) if overheads else 0.0
    work_s = trial_flop(spec, survey) / (rate * processor_count(resources))
    return START_S[nested] + overhead + work_s


def speed_metrics(
    spec: Spec,
    resources: Resources,
    survey: Survey,
    trained_s: float,
    wall_s: float,
    forecast: float | None,
) -> dict[str, float]:
    """Return the metrics of a finished trial's speed, which `run_speeds` reads.

    `trained_s` and `wall_s` are the seconds of its training steps and of the whole trial.
    `forecast` is the expected `wall_s`, None if there is none to compare with.
    """
    flop, count = step_flop(spec), processor_count(resources)
    rate = spec.train.epochs * steps_per_epoch(spec, survey) * flop / trained_s / count
    metrics = {
        RATE: rate,
        STEP_FLOP: flop,
        WALL: wall_s,
        OVERHEAD: max(0.0, wall_s - trial_flop(spec, survey) / (rate * count)),
        DEVICE_HOURS: wall_s * count / 3600,
    }
    if forecast is not None:
        metrics |= {FORECAST: forecast, FORECAST_ERROR: wall_s / forecast - 1}
    return metrics


def clock(seconds: float) -> str:
    """Return a duration as a short text: `45 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
