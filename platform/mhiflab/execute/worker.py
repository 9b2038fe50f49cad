"""One worker of a trial: train, and on rank 0 evaluate the test scenes and record all.

MLflow's monitors of CPU, memory and GPUs are read once per epoch.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

from feinfn.data.pairs import Images, ScenePairs, StoredPairs, prepared_file, with_reference
from feinfn.data.patches import Patches
from feinfn.evaluation import Fuse, by_classical, by_network
from feinfn.files import BEST, write_atomic
from feinfn.methods.classical.registry import CLASSICAL
from feinfn.methods.cost import flop_per_pixel
from feinfn.methods.network import Network, count_parameters
from feinfn.methods.registry import build, name_of
from feinfn.methods.sensor import sensor_of
from feinfn.metrics.conventions import CONVENTION
from feinfn.training.train import Report, train
from feinfn.training.workers import world
from mhiflab.cluster.code import machine_provenance
from mhiflab.execute.evaluate import Scores, score_tests
from mhiflab.execute.job import Job
from mhiflab.execute.packaged import save_packaged
from mhiflab.execute.preemption import deferred, preempted
from mhiflab.plan.forecast import DEVICE, speed_metrics
from mhiflab.record.artifacts import FUSED, WITHOUT_REFERENCE, metrics_of
from mhiflab.record.description import dataset_inputs, flatten
from mhiflab.record.store import (
    BANDS_FILE,
    FINGERPRINT,
    IMAGES_FILE,
    QUICKLOOK_FILE,
    SPEC_HASH,
    TESTED_TAG,
)
from mhiflab.record.writer import Record
from mhiflab.study.identity import canonical, spec_hash
from mhiflab.study.spec import settings_of


def _record_start(record: Record, job: Job) -> None:
    spec, code = job.spec, job.code
    commit = {"mlflow.source.git.commit": code["git_commit"]} if code["git_commit"] else {}
    record.settings(
        flatten(settings_of(spec)),
        {
            "mhiflab.protocol": spec.protocol.name,
            "mhiflab.protocol_hash": spec.protocol.hash(),
            "mhiflab.convention": CONVENTION,
            FINGERPRINT: job.survey.fingerprint,
            SPEC_HASH: spec_hash(spec),
            DEVICE: f"{job.work.device}/{'workers' if job.resources.workers else 'direct'}",
            "mhiflab.git_commit": str(code["git_commit"]),
            "mhiflab.git_dirty": str(code["git_dirty"]),
            **commit,
        },
    )
    record.datasets(dataset_inputs(spec.data, job.survey))
    record.json(settings_of(spec), "spec.json")
    record.json(canonical(spec, job.survey.fingerprint), "identity.json")


def _last_step(job: Job) -> int:
    return job.spec.train.epochs if job.spec.trained else 0


def _record_end(record: Record, job: Job, folder: Path, scores: Scores) -> None:
    images = scores.images
    fused = images[images["method"] == FUSED]
    for convention in (CONVENTION, WITHOUT_REFERENCE):
        rows = fused[fused["convention"] == convention]
        means = {f"test_{m}": float(rows[m].mean()) for m in metrics_of(convention) if len(rows)}
        record.metrics(_last_step(job), means)
    record.metrics(_last_step(job), scores.effort)

    def write_pictures(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **scores.pictures)  # type: ignore[arg-type]

    write_atomic(folder / QUICKLOOK_FILE, write_pictures)
    for name, table in ((IMAGES_FILE, images), (BANDS_FILE, scores.bands)):
        write_atomic(folder / name, partial(table.to_csv, index=False))
    for name in (IMAGES_FILE, BANDS_FILE, QUICKLOOK_FILE):
        record.artifact(folder / name)
    if not job.spec.trained:
        return
    metadata = {"run_key": job.key, "protocol": job.spec.protocol.name}
    with TemporaryDirectory(prefix="mhiflab-") as temporary:
        packaged = Path(temporary) / "model"
        save_packaged(
            packaged, folder / BEST, job.spec.model, job.spec.protocol, metadata, job.wavelengths_nm
        )
        record.artifact(packaged)


def _stored(job: Job, names: tuple[str, ...], device: torch.device) -> StoredPairs:
    files = [prepared_file(job.spec.data, name) for name in names]
    return StoredPairs(files, job.spec.protocol, job.spec.model, device)


def _images(job: Job, part: Literal["validation", "test"], device: torch.device) -> Images:
    """Return the images of one part; real pairs without reference are tested as measured."""
    spec, names = job.spec, getattr(job.spec.data, part)
    if spec.data.inputs == "stored":
        return _stored(job, names, device)
    return ScenePairs(job.scenes(names), spec.protocol, spec.model, device, part == "test")


def _patches(job: Job, device: torch.device, model: Network) -> Patches | StoredPairs:
    spec, data = job.spec, job.spec.data
    if data.inputs == "stored":
        return _stored(job, data.train, device)
    scenes = [with_reference(scene, spec.protocol) for scene in job.scenes(data.train)]
    start = model.start if model.config.base != "lms" else None
    return Patches(scenes, spec.protocol, spec.train, device, data.inputs == "patch", start)


def run_worker(job: Job, device: torch.device, report: Callable[[dict[str, Any]], None]) -> None:
    """Train this worker's share of a trial; on rank 0 also evaluate it once and record all.

    `report` is called on every rank after every epoch. Test scenes stay closed until training has
    ended.
    """
    with job.record() if world()[0] == 0 else nullcontext() as record:
        _train_and_record(job, device, report, record)


def _train_and_record(
    job: Job,
    device: torch.device,
    report: Callable[[dict[str, Any]], None],
    record: Record | None,
) -> None:
    started = time.perf_counter()
    spec, folder = job.spec, job.lab.checkpoints(job.key)
    torch.set_num_threads(max(1, int(job.resources.cpus_per_worker)))
    if record:
        _record_start(record, job)
        # A killed process leaves half-written files. The record's lock keeps others away.
        for partial_file in folder.glob(".*.partial"):
            partial_file.unlink()
    if world()[1] > 1:
        # Wait for rank 0, which holds the record's lock: no worker may read the training state
        # while a worker of an earlier, dying group could still write it.
        dist.barrier()
    if spec.trained:
        method = _train(job, device, report, record)
    else:
        method = ReadyMethod(by_classical(CLASSICAL[name_of(spec.model)], spec.protocol))
    if record and not job.pauses:
        if job.test:
            scores = score_tests(method.fuse, _images(job, "test", device))
            _record_end(record, job, folder, scores)
        record.settings({}, {TESTED_TAG: str(job.test).lower()})
        code = {k: v for k, v in job.code.items() if k != "git_diff"}
        record.json(
            {
                **code,
                **machine_provenance(device),
                "data_fingerprint": job.survey.fingerprint,
                "protocol": asdict(spec.protocol),
                "resources": asdict(job.resources),
                "workers": world()[1],
                "wall_seconds": round(time.perf_counter() - started, 3),
                **method.about,
            },
            "provenance.json",
        )
        if job.code["git_diff"]:
            record.text(job.code["git_diff"], "uncommitted.diff")
        if method.reports:
            # A continued run cannot check the forecast of a whole one.
            forecast = job.forecast_s if method.reports[0].epoch == 1 else None
            wall_s = time.perf_counter() - started
            trained_s = method.reports[-1].metrics["train_seconds"]
            flop = flop_per_pixel(spec.model, spec.protocol.ratio)
            speeds = speed_metrics(job.work, flop, trained_s, wall_s, forecast)
            record.metrics(spec.train.epochs, speeds)
        record.finish()


@dataclass(frozen=True)
class ReadyMethod:
    """A method that is ready to fuse test images, with facts about its training."""

    fuse: Fuse
    about: dict[str, Any] = field(default_factory=dict)
    """Facts for the run's provenance."""
    reports: list[Report] = field(default_factory=list)
    """One report per epoch; none if nothing was trained."""


def _train(
    job: Job,
    device: torch.device,
    report: Callable[[dict[str, Any]], None],
    record: Record | None,
) -> ReadyMethod:
    spec = job.spec
    torch.manual_seed(spec.seed)
    sensor = sensor_of(spec.model, spec.protocol, job.wavelengths_nm)
    resources = job.resources
    model = build(spec.model, resources.memory_mib, resources.recompute, sensor).to(device)
    patches, validation = _patches(job, device, model), _images(job, "validation", device)
    system = SystemMetrics(device)
    reports: list[Report] = []
    warnings: list[str] = []
    unreported: list[str] = []

    def warn(text: str) -> None:
        warnings.append(text)
        unreported.append(text)

    def on_epoch(result: Report) -> None:
        reports.append(result)
        if record:
            record.metrics(
                result.epoch, {"epoch": result.epoch, **result.metrics, **system.sample()}
            )
        line = " ".join(f"{name} {value:.6g}" for name, value in result.metrics.items())
        print(f"epoch {result.epoch}/{result.epochs} {line}", flush=True)
        news = {"warning": unreported.pop()} if unreported else {}
        report({"epoch": result.epoch, **result.metrics, **news})

    with deferred():
        best = train(
            model,
            patches,
            validation,
            spec.train,
            spec.seed,
            job.lab.checkpoints(job.key),
            on_epoch,
            preempted=preempted,
            accumulate=job.resources.accumulate,
            checkpoint_every=job.resources.checkpoint_every,
            until=job.until,
            warn=warn,
        )
    facts = {
        "warnings": warnings,
        "parameters": count_parameters(model),
        "best_epoch": best["epoch"] + 1,
    }
    return ReadyMethod(by_network(model), facts, reports)


class SystemMetrics:
    """Monitors of CPU and memory, and of every GPU if the training uses one."""

    def __init__(self, device: torch.device) -> None:
        self._monitors: list[Any] = [CPUMonitor()]
        if device.type == "cuda":
            # nvidia-ml-py may be missing, or a container may hide NVML: measure the rest.
            with suppress(ImportError, RuntimeError):
                self._monitors.append(GPUMonitor())
        self.sample()

    def sample(self) -> dict[str, float]:
        """Return the values since the last call by MLflow's names, `system/...`."""
        values: dict[str, float] = {}
        for monitor in self._monitors:
            monitor.collect_metrics()
            values |= monitor.aggregate_metrics()
            monitor.clear_metrics()
        return {f"system/{name}": value for name, value in values.items()}
