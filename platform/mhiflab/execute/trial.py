"""One trial as a Tune function: starts its Ray Train workers, or trains by itself.

Ray carries progress only. The training state lies in the lab folder by run key and the results lie
in MLflow, so a new driver continues where an earlier one stopped.
"""

import gc
import traceback
import uuid
from dataclasses import replace
from typing import Any

import torch
from ray import get_runtime_context, tune

from feinfn.errors import OutOfMemory, Preempted, UserError
from mhiflab.cluster.connect import selector, worker_request
from mhiflab.cluster.ray_private import free_unlaunched, log_folder
from mhiflab.execute.job import Job
from mhiflab.execute.worker import run_worker

LOG_LINES = 60
"""Last lines of a failed worker's log to keep with its traceback."""


def run_trial(config: dict[str, Any], jobs: dict[str, Job]) -> None:
    """Execute the job whose key `config` names, and report its end state."""
    tune.report(_end_state(jobs[config["key"]]))


def _end_state(job: Job) -> dict[str, Any]:
    """Execute a trial; return its end state (done, paused, failed or lost) and the error, if any.

    A lost worker is replaced as often as the job's retry rules allow, and training continues from
    its last saved state. A failure is recorded and not raised, so that the study goes on.
    """
    losses = 0
    while True:
        try:
            if job.resources.workers:
                _train_with_workers(job)
            else:
                cuda = torch.cuda.is_available() and job.resources.gpus_per_worker > 0
                run_worker(job, torch.device("cuda" if cuda else "cpu"), tune.report)
            return {"state": "paused" if job.pauses else "done"}
        except Preempted:
            # This process ends; Tune starts the trial again in a new one.
            raise
        except Exception as error:
            if not job.resources.workers:
                error.add_note(f"Its last lines:\n{log_tail()}")
            causes = _causes(error)
        if _is_lost(causes):
            losses += 1
            if losses > job.retry.lost:
                return {"state": "lost", "error": _message(causes[0])}
            continue
        share = job.spec.train.batch_size // max(job.resources.workers, 1)
        parts = 2 * job.resources.accumulate
        takes_more_parts = job.retry.oom == "accumulate" and share % parts == 0
        if not (isinstance(causes[0], OutOfMemory) and takes_more_parts):
            return {"state": "failed", "error": _record_failure(job, causes[0])}
        job = replace(job, resources=replace(job.resources, accumulate=parts))
        # Free the memory of the failed step before the next one asks for some.
        del causes
        gc.collect()


def _causes(error: Exception) -> list[BaseException]:
    """Return the errors of a group's workers by rank, or the error itself."""
    failures = getattr(error, "worker_failures", None)
    return [failures[rank] for rank in sorted(failures)] if failures else [error]


def _train_with_workers(job: Job) -> None:
    # Not above: a direct trial would wait for Ray Train to load.
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    resources = job.resources
    trainer = TorchTrainer(
        _worker_loop,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker=worker_request(resources),
            label_selector=selector(job.avoid) or None,
        ),
        run_config=RunConfig(
            # Ray silently resumes its own state under a name that it knows.
            name=f"{job.key[:12]}-{uuid.uuid4().hex[:6]}",
            storage_path=str(job.scratch),
            callbacks=[TuneReportCallback(), free_unlaunched()],
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=3),
        ),
    )
    trainer.fit()


def _worker_loop(config: dict[str, Any]) -> None:
    from ray import train as ray_train
    from ray.train.torch import get_device

    try:
        run_worker(config["job"], get_device(), ray_train.report)
    except Exception as error:
        # Ray drops tracebacks in transport, but a note travels with its exception.
        error.add_note(f"In the worker:\n{traceback.format_exc()}\nIts last lines:\n{log_tail()}")
        raise


def log_tail() -> str:
    """Return the last lines that this Ray worker printed; empty if it has no log files."""
    lines: list[str] = []
    for path in sorted(log_folder().glob(f"worker-{get_runtime_context().get_worker_id()}*")):
        lines += path.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
    return "\n".join(lines)


def _is_lost(causes: list[BaseException]) -> bool:
    """Return True if a worker's process or node died, rather than its training failed.

    Ray reports this with its own error types. Often the worker's peers report a broken connection
    first.
    """
    return any(
        isinstance(one, Preempted | torch.distributed.DistBackendError)
        or type(one).__module__.startswith("ray.")
        or any(sign in str(one) for sign in ("gloo/transport", "onnection closed by peer"))
        for one in causes
    )


def _message(error: BaseException) -> str:
    if isinstance(error, UserError):
        return str(error)
    # Ray's errors take a dozen lines.
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def _record_failure(job: Job, cause: BaseException) -> str:
    """Record a failure and return its message."""
    message = _message(cause)
    try:
        job.record().fail(message, "".join(traceback.format_exception(cause)))
    except UserError as store_error:
        # Show the training's error first: the store is away and cannot record it.
        message += f" (not recorded: {store_error})"
    return message
