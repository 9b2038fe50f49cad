"""One trial as a Tune function: starts its Ray Train workers, or trains by itself.

Ray carries progress only. Training state lies under the lab folder by run key and the record is
MLflow, so a new driver continues where any earlier one stopped.
"""

import gc
import traceback
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ray import get_runtime_context, tune
from ray import train as ray_train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.tune.integration.ray_train import TuneReportCallback

from feinfn.errors import OutOfMemory, Preempted, UserError
from mhiflab.cluster.connect import selector, worker_request
from mhiflab.execute.job import Job
from mhiflab.execute.ray_fixes import FreeUnlaunched
from mhiflab.execute.worker import run_worker

LOG_LINES = 60
"""Last lines of a failed worker's log that are kept with its traceback."""


def log_tail() -> str:
    """Return the last lines that this Ray worker printed, where it has log files."""
    context = get_runtime_context()
    folder = Path(ray_log_folder())
    lines: list[str] = []
    for path in sorted(folder.glob(f"worker-{context.get_worker_id()}*")):
        lines += path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join(lines)


def ray_log_folder() -> str:
    """Return the folder of this node's Ray logs."""
    from ray._private.worker import global_worker

    return str(Path(global_worker.node.get_session_dir_path()) / "logs")


def _worker_loop(config: dict[str, Any]) -> None:
    try:
        run_worker(config["job"], get_device(), ray_train.report)
    except Exception as error:
        # Ray's transport drops tracebacks, but a note travels with its exception.
        error.add_note(f"In the worker:\n{traceback.format_exc()}\nIts last lines:\n{log_tail()}")
        raise


def _train_with_workers(job: Job) -> None:
    wanted = job.resources
    trainer = TorchTrainer(
        _worker_loop,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=wanted.workers,
            use_gpu=wanted.gpus_per_worker > 0,
            resources_per_worker=worker_request(wanted),
            label_selector=selector(job.avoid) or None,
        ),
        run_config=RunConfig(
            # A reused name would silently resume Ray's own state.
            name=f"{job.key[:12]}-{uuid.uuid4().hex[:6]}",
            storage_path=str(job.scratch),
            callbacks=[TuneReportCallback(), FreeUnlaunched()],
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=3),
        ),
    )
    trainer.fit()


def _train_here(job: Job) -> None:
    cuda = torch.cuda.is_available() and job.resources.gpus_per_worker > 0
    run_worker(job, torch.device("cuda" if cuda else "cpu"), tune.report)


def _causes(error: BaseException) -> list[BaseException]:
    """Return the exceptions that workers raised, below Ray's wrapping."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        return [error.worker_failures[rank] for rank in sorted(error.worker_failures)]
    return [error]


def _lost(causes: list[BaseException]) -> bool:
    """Return whether a worker's process or node is gone, rather than its training wrong.

    Ray says so in errors of its own; the worker's peers, often first, that a connection broke.
    """
    return any(
        isinstance(one, Preempted)
        or type(one).__module__.startswith("ray.")
        or isinstance(one, torch.distributed.DistBackendError)
        or any(sign in str(one) for sign in ("gloo/transport", "onnection closed by peer"))
        for one in causes
    )


def _told(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    # Ray's own errors take a dozen lines.
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def _smaller(job: Job) -> Job | None:
    """Return the job with its batches in twice as many parts, None where that cannot be."""
    share = job.spec.train.batch_size // max(job.resources.workers, 1)
    parts = 2 * job.resources.accumulate
    if job.retry.oom != "accumulate" or share % parts:
        return None
    return replace(job, resources=replace(job.resources, accumulate=parts))


def run_job(job: Job) -> dict[str, Any]:
    """Execute a trial and return how it ended: state done, paused, failed or lost, and the error.

    A worker that was lost is replaced as often as the job's retry rules say; the training goes on
    from its last saved state. A failure is recorded, never raised into the study.
    """
    lost = 0
    while True:
        try:
            if job.resources.workers:
                _train_with_workers(job)
            else:
                _train_here(job)
            return {"state": "paused" if job.pauses else "done"}
        except Preempted:
            # This process ends; Tune starts the trial again in another.
            raise
        except Exception as error:
            if not job.resources.workers:
                error.add_note(f"Its last lines:\n{log_tail()}")
            causes = _causes(error)
        if _lost(causes):
            lost += 1
            if lost > job.retry.lost:
                return {"state": "lost", "error": _told(causes[0])}
            continue
        cause = causes[0]
        smaller = _smaller(job) if isinstance(cause, OutOfMemory) else None
        if smaller is None:
            return {"state": "failed", "error": _record_failure(job, cause)}
        job = smaller
        # What the failed step held must be free before the next one asks for memory.
        del causes, cause
        gc.collect()


def _record_failure(job: Job, cause: BaseException) -> str:
    """Record a failure and return its message."""
    message = _told(cause)
    try:
        job.record().fail(message, "".join(traceback.format_exception(cause)))
    except UserError as unrecorded:
        # The first error is the one to show; a store that is gone cannot take it.
        message += f" (not recorded: {unrecorded})"
    return message


def run_trial(config: dict[str, Any], jobs: dict[str, Job]) -> None:
    """Execute the job whose key `config` names, and report how it ended."""
    tune.report(run_job(jobs[config["key"]]))
