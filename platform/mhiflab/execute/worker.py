"""One worker of a trial: train, and on rank 0 evaluate the test scenes and record all.

MLflow's monitors of CPU, memory and GPUs are read once per epoch.
"""

import platform
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
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
from feinfn.methods.configs import name_of
from feinfn.methods.cost import flop_per_pixel
from feinfn.methods.network import Network, count_parameters
from feinfn.methods.registry import build
from feinfn.methods.sensor import sensor_of
from feinfn.metrics.label import CONVENTION
from feinfn.training.train import Report, train
from feinfn.training.workers import world
from mhiflab.cluster.ray_private import deferred, preempted
from mhiflab.execute.evaluate import score_tests
from mhiflab.execute.job import Job
from mhiflab.packaged import save_packaged
from mhiflab.plan.forecast import pace_of_test, speed_metrics
from mhiflab.record import artifacts, tag
from mhiflab.record.studies import dataset_inputs
from mhiflab.record.writer import Record
from mhiflab.study.identity import canonical, spec_hash
from mhiflab.study.settings import flatten
from mhiflab.study.spec import settings_of

ReportProgress = Callable[[dict[str, Any]], None]


def run_worker(job: Job, device: torch.device, report: ReportProgress) -> None:
    """Train this worker's share of a trial; on rank 0 also evaluate it once and record all.

    `report` is called on every rank after every epoch, and by a single worker after every test
    image. Test scenes stay closed until training has ended.
    """
    rank, workers = world()
    with job.record() if rank == 0 else nullcontext() as record:
        started = time.perf_counter()
        torch.set_num_threads(max(1, int(job.resources.cpus_per_worker)))
        if record:
            _record_start(record, job)
            # A killed process leaves half-written files. The record's lock keeps others away.
            for partial_file in job.lab.checkpoints(job.key).glob(".*.partial"):
                partial_file.unlink()
        if workers > 1:
            # Wait for rank 0, which holds the record's lock: no worker may read the training state
            # while a worker of an earlier, dying group could still write it.
            dist.barrier()
        fuse, about, reports = _train(job, device, report, record)
        if record and not job.pauses:
            test_s = 0.0
            if job.test:
                opened = time.perf_counter()
                # Ray's report waits for all workers, of which the others have ended.
                tell = report if workers == 1 else lambda values: None
                _record_tests(record, job, fuse, _images(job, "test", device), tell)
                test_s = time.perf_counter() - opened
                last_step = job.spec.train.epochs if job.spec.trained else 0
                record.metrics(last_step, pace_of_test(job.work, test_s))
            _record_end(record, job, device, about, reports, started, test_s)


def _record_start(record: Record, job: Job) -> None:
    spec, code = job.spec, job.code
    commit = {"mlflow.source.git.commit": code["git_commit"]} if code["git_commit"] else {}
    record.settings(
        flatten(settings_of(spec)),
        {
            "mhiflab.protocol": spec.protocol.name,
            "mhiflab.protocol_hash": spec.protocol.hash(),
            "mhiflab.convention": CONVENTION,
            tag.FINGERPRINT: job.survey.fingerprint,
            tag.SPEC_HASH: spec_hash(spec),
            tag.DEVICE: f"{job.work.device}/{'workers' if job.resources.workers else 'direct'}",
            "mhiflab.git_commit": str(code["git_commit"]),
            "mhiflab.git_dirty": str(code["git_dirty"]),
            **commit,
        },
    )
    record.datasets(dataset_inputs(spec.data, job.survey))
    record.json(settings_of(spec), "spec.json")
    record.json(canonical(spec, job.survey.fingerprint), "identity.json")


def _train(
    job: Job, device: torch.device, report: ReportProgress, record: Record | None
) -> tuple[Fuse, dict[str, Any], list[Report]]:
    """Return the trained method, facts for its provenance, and the report of every epoch."""
    spec = job.spec
    reports: list[Report] = []
    if not spec.trained:
        method = replace(CLASSICAL[name_of(spec.model)], consistency=spec.model.consistency)
        return by_classical(method, spec.protocol), {}, reports
    torch.manual_seed(spec.seed)
    sensor, resources = sensor_of(spec.model, spec.protocol, job.survey.training_nm), job.resources
    model = build(spec.model, resources.memory_mib, resources.recompute, sensor).to(device)
    patches, validation = _patches(job, device, model), _images(job, "validation", device)
    system = SystemMetrics(device)
    warnings: list[str] = []
    unreported: deque[str] = deque()

    def warn(text: str) -> None:
        warnings.append(text)
        unreported.append(text)

    def on_epoch(result: Report) -> None:
        reports.append(result)
        values = {"epoch": result.epoch, **result.metrics}
        if record:
            record.metrics(result.epoch, {**values, **system.sample()})
        line = " ".join(f"{name} {value:.6g}" for name, value in result.metrics.items())
        print(f"epoch {result.epoch}/{result.epochs} {line}", flush=True)
        report({**values, "warning": unreported.popleft()} if unreported else values)

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
            accumulate=resources.accumulate,
            checkpoint_every=resources.checkpoint_every,
            until=job.until,
            warn=warn,
        )
    facts = {"parameters": count_parameters(model), "best_epoch": best["epoch"] + 1}
    return by_network(model), {"warnings": warnings, **facts}, reports


def _patches(job: Job, device: torch.device, model: Network) -> Patches | StoredPairs:
    spec, data = job.spec, job.spec.data
    if data.inputs == "stored":
        return _stored(job, data.train, device)
    scenes = [with_reference(scene, spec.protocol) for scene in job.scenes(data.train)]
    start = model.start if model.config.base != "lms" else None
    return Patches(scenes, spec.protocol, spec.train, device, data.inputs == "patch", start)


def _images(job: Job, part: Literal["validation", "test"], device: torch.device) -> Images:
    """Return the images of one part; real pairs without reference are tested as measured."""
    spec, names = job.spec, getattr(job.spec.data, part)
    if spec.data.inputs == "stored":
        return _stored(job, names, device)
    return ScenePairs(job.scenes(names), spec.protocol, spec.model, device, part == "test")


def _stored(job: Job, names: tuple[str, ...], device: torch.device) -> StoredPairs:
    files = [prepared_file(job.spec.data, name) for name in names]
    return StoredPairs(files, job.spec.protocol, job.spec.model, device)


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


def _record_tests(
    record: Record, job: Job, fuse: Fuse, test_images: Images, report: ReportProgress
) -> None:
    """Record the scores and pictures of the test images, and the trained network."""
    spec, folder = job.spec, job.lab.checkpoints(job.key)
    started, total = time.perf_counter(), len(test_images)

    def on_image(done: int) -> None:
        test_s = (time.perf_counter() - started) * total / done
        report({"images": done, "of_images": total, "expected_test_s": test_s})

    scores = score_tests(fuse, test_images, job.lab.cache, on_image)
    last_step = spec.train.epochs if spec.trained else 0
    images = scores.images
    fused = images[images["method"] == artifacts.FUSED]
    for convention in (CONVENTION, artifacts.WITHOUT_REFERENCE):
        rows = fused[fused["convention"] == convention]
        metrics = artifacts.metrics_of(convention) if len(rows) else ()
        means = {f"test_{name}": float(rows[name].mean(skipna=False)) for name in metrics}
        record.metrics(last_step, means)
    record.metrics(last_step, scores.effort)

    def write_pictures(path: Path) -> None:
        with path.open("wb") as file:
            np.savez_compressed(file, **scores.pictures)  # type: ignore[arg-type]

    for name, write in (
        (artifacts.IMAGES_FILE, partial(images.to_csv, index=False)),
        (artifacts.BANDS_FILE, partial(scores.bands.to_csv, index=False)),
        (artifacts.QUICKLOOK_FILE, write_pictures),
    ):
        write_atomic(folder / name, write)
        record.artifact(folder / name)
    if spec.trained:
        metadata = {"run_key": job.key, "protocol": spec.protocol.name}
        with TemporaryDirectory(prefix="mhiflab-") as temporary:
            model = Path(temporary) / "model"
            save_packaged(
                model, folder / BEST, spec.model, spec.protocol, metadata, job.survey.training_nm
            )
            record.artifact(model)


def _record_end(
    record: Record,
    job: Job,
    device: torch.device,
    about: dict[str, Any],
    reports: list[Report],
    started: float,
    test_s: float,
) -> None:
    """Record provenance and speed, and close the run."""
    record.settings({}, {tag.TESTED: str(job.test).lower()})
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    code = {k: v for k, v in job.code.items() if k != "git_diff"}
    record.json(
        {
            **code,
            "host": platform.node(),
            "system": platform.platform(),
            "device": gpu or platform.machine(),
            "threads": torch.get_num_threads(),
            "data_fingerprint": job.survey.fingerprint,
            "protocol": asdict(job.spec.protocol),
            "resources": asdict(job.resources),
            "workers": world()[1],
            "wall_seconds": round(time.perf_counter() - started, 3),
            **about,
        },
        "provenance.json",
    )
    if job.code["git_diff"]:
        record.text(job.code["git_diff"], "uncommitted.diff")
    spec, wall_s = job.spec, time.perf_counter() - started
    if reports:
        # A continued run cannot check the forecast of a whole one.
        forecast_s = job.forecast_s if reports[0].epoch == 1 else None
        trained_s = reports[-1].metrics["train_seconds"]
        flop = flop_per_pixel(spec.model, spec.protocol.ratio)
        speeds = speed_metrics(job.work, flop, trained_s, test_s, wall_s, forecast_s)
        record.metrics(spec.train.epochs, speeds)
    elif not spec.trained:
        record.metrics(0, speed_metrics(job.work, 0.0, 0.0, test_s, wall_s, job.forecast_s))
    # A run that was lost while it was tested has no epoch to report.
    if "parameters" in about:
        record.metrics(spec.train.epochs, {"parameters": about["parameters"]})
    record.finish()
