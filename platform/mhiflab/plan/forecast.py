"""Forecasts: device-hours, and the time until the last trial ends.

Operations of the network over measured rates of recorded runs.
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
    """The expected cost of some trials."""

    seconds: dict[str, float]
    """Of every trial that can be forecast, by run key."""
    device_hours: float
    """CPU-hours, or GPU-hours of trials that use GPUs."""
    unknown: int
    """Trials on GPUs that nothing was measured on yet."""

    def line(self, at_once: int) -> str:
        """Return the forecast as a sentence, for trials that run so many at once."""
        if not self.seconds:
            return "" if not self.unknown else "no GPU run is on record yet: no forecast"
        total = sum(self.seconds.values())
        # The last trial of each slot ends at different times; none is shorter than the longest.
        eta = max(total / at_once, max(self.seconds.values()))
        text = f"about {self.device_hours:.2g} device-hours, {clock(eta)} with {at_once} at once"
        return text + (f"; {self.unknown} on GPUs cannot be forecast yet" if self.unknown else "")


def forecast(entries: Sequence[Entry], runs: Sequence[Run]) -> Forecast:
    """Return what trials will cost, from the rates of recorded runs (or one measured here)."""
    known = measured(runs)
    seconds: dict[str, float] = {}
    hours, unknown = 0.0, 0
    for entry in entries:
        assert entry.survey is not None, "a trial that is not blocked has a survey"
        found = forecast_s(entry.trial.spec, entry.trial.resources, entry.survey, known)
        if found is None:
            unknown += 1
            continue
        seconds[entry.key] = found
        hours += found * processors(entry.trial.resources) / 3600
    return Forecast(seconds, hours, unknown)


def slots_here(entries: Sequence[Entry]) -> int:
    """Return how many of these trials this machine's CPUs hold at once."""
    held = max(held_by_trial(entry.trial.resources)[0] for entry in entries)
    return max(1, int(usable_cpus() // held))


BACKWARD = 3.0
"""Operations of a training step in units of its forward pass."""

START_S = {False: 4.0, True: 10.0}
"""Seconds until a trial begins to work: in its own process, and with Ray Train workers
(experiments/bench/overhead.py)."""

RATE, DEVICE, WALL, OVERHEAD = "train_flop_per_s", "mhiflab.device", "wall_s", "overhead_s"

FORECAST, FORECAST_ERROR = "forecast_s", "forecast_error"

STEP_FLOP, DEVICE_HOURS = "step_flop", "device_hours"

CLASSICAL_S_PER_PIXEL = 1e-4
"""Order of the slowest classical method's time on one CPU."""

NEAREST = 5
"""Recorded runs, nearest in size, whose median rate counts."""


def steps_per_epoch(spec: Spec, survey: Survey) -> int:
    """Return the optimiser steps of an epoch, as the grid of patches gives them."""
    train, patches = spec.train, 0
    for scene in survey.scenes:
        if scene.part == "train":
            size = scene.shape_SHW[1:]
            starts = [max(0, (n - train.patch_px) // train.stride_px + 1) for n in size]
            patches += math.prod(starts) if spec.data.inputs != "stored" else 1
    return max(1, patches // train.batch_size)


def step_flop(spec: Spec) -> float:
    """Return the operations of one optimiser step."""
    pixels = spec.train.batch_size * spec.train.patch_px**2
    return BACKWARD * pixels * flop_per_pixel(spec.model, spec.protocol.ratio)


def trial_flop(spec: Spec, survey: Survey) -> float:
    """Return the operations of a trial: its steps, its validations, and the test images."""
    train = spec.train
    pixels = {"train": 0, "validation": 0, "test": 0}
    for scene in survey.scenes:
        pixels[scene.part] += math.prod(scene.fused_size())
    validations = math.ceil(train.epochs / train.validate_every)
    seen = validations * pixels["validation"] + pixels["test"]
    fused = seen * flop_per_pixel(spec.model, spec.protocol.ratio)
    return train.epochs * steps_per_epoch(spec, survey) * step_flop(spec) + fused


def processors(resources: Resources) -> float:
    """Return what a trial computes on: its GPUs, or else its CPUs."""
    gpus = resources.gpus_per_worker or bool(resources.gpu_memory_gib)
    return max(resources.workers, 1) * (gpus or resources.cpus_per_worker)


def device_kind(resources: Resources) -> str:
    """Return `gpu` or `cpu`, the kind of processor that a trial's rate is measured on."""
    return "gpu" if resources.gpus_per_worker or resources.gpu_memory_gib else "cpu"


@cache
def calibrated_rate() -> float:
    """Return the operations a second of one CPU of this machine, from a few small steps."""
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
class Measured:
    """What one finished run tells about speed."""

    kind: str
    nested: bool
    step_flop: float
    rate: float
    overhead_s: float


def measured(runs: Iterable[Run]) -> list[Measured]:
    """Return what the finished runs of a record tell."""
    found = []
    for run in runs:
        metrics, tags = run.data.metrics, run.data.tags
        if {RATE, OVERHEAD, STEP_FLOP} <= set(metrics) and DEVICE in tags:
            kind, nested = tags[DEVICE].split("/")
            one = Measured(
                kind, nested == "workers", metrics[STEP_FLOP], metrics[RATE], metrics[OVERHEAD]
            )
            found.append(one)
    return found


def device_tag(resources: Resources) -> str:
    """Return the tag that tells what a run's speed was measured on."""
    return f"{device_kind(resources)}/{'workers' if resources.workers else 'direct'}"


def forecast_s(
    spec: Spec, resources: Resources, survey: Survey, known: list[Measured]
) -> float | None:
    """Return the expected seconds of a trial, None for a GPU that nothing was measured on."""
    if not spec.trained:
        pixels = sum(math.prod(s.fused_size()) for s in survey.scenes if s.part == "test")
        return START_S[resources.workers > 0] + CLASSICAL_S_PER_PIXEL * pixels
    kind, nested, own = device_kind(resources), resources.workers > 0, step_flop(spec)
    alike = [one for one in known if one.kind == kind]
    near = sorted(alike, key=lambda one: abs(math.log(one.step_flop / own)))[:NEAREST]
    if not near and kind == "gpu":
        return None
    rate = median(one.rate for one in near) if near else calibrated_rate()
    overheads = [one.overhead_s for one in known if one.nested == nested]
    overhead = median(overheads) if overheads else 0.0
    return START_S[nested] + overhead + trial_flop(spec, survey) / (rate * processors(resources))


def speed(
    spec: Spec,
    resources: Resources,
    survey: Survey,
    trained_s: float,
    wall_s: float,
    forecast: float | None,
) -> dict[str, float]:
    """Return what a finished trial tells about time, as `measured` reads it.

    `trained_s` and `wall_s` are the seconds of its training steps and of everything;
    `forecast` is what was expected of the latter, None where that cannot be compared.
    """
    flop, count = step_flop(spec), processors(resources)
    rate = spec.train.epochs * steps_per_epoch(spec, survey) * flop / trained_s / count
    found = {
        RATE: rate,
        STEP_FLOP: flop,
        WALL: wall_s,
        OVERHEAD: max(0.0, wall_s - trial_flop(spec, survey) / (rate * count)),
        DEVICE_HOURS: wall_s * count / 3600,
    }
    if forecast is not None:
        found |= {FORECAST: forecast, FORECAST_ERROR: wall_s / forecast - 1}
    return found


def clock(seconds: float) -> str:
    """Return a duration as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
