"""One trial as a Tune function: starts its Ray Train workers, or trains by itself.

Ray carries progress only. Training state lies under the lab folder by run key and the record is
MLflow, so a new driver continues where any earlier one stopped.
"""

import traceback
import uuid
from typing import Any

import torch
from ray import train as ray_train
from ray import tune
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer, get_device
from ray.train.v2.api.exceptions import WorkerGroupError
from ray.tune.integration.ray_train import TuneReportCallback

from feinfn.errors import UserError
from mhiflab.cluster import selector, worker_request
from mhiflab.worker import Job, run_worker


def _worker_loop(config: dict[str, Any]) -> None:
    try:
        run_worker(config["job"], get_device(), ray_train.report)
    except Exception as error:
        # Ray's transport drops tracebacks, but a note travels with its exception.
        error.add_note(f"In the worker:\n{traceback.format_exc()}")
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
            callbacks=[TuneReportCallback()],
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=3),
        ),
    )
    trainer.fit()


def _cause(error: BaseException) -> BaseException:
    """Return the exception that a worker raised, below Ray's wrapping."""
    if isinstance(error, WorkerGroupError) and error.worker_failures:
        return error.worker_failures[min(error.worker_failures)]
    return error


def run_trial(config: dict[str, Any], jobs: dict[str, Job]) -> None:
    """Execute the job whose key `config` names.

    A failure is recorded and reported, never raised into the study.
    """
    job = jobs[config["key"]]
    try:
        if job.resources.workers:
            _train_with_workers(job)
        else:
            cuda = torch.cuda.is_available() and job.resources.gpus_per_worker > 0
            run_worker(job, torch.device("cuda" if cuda else "cpu"), tune.report)
        tune.report({"state": "done"})
    except Exception as error:
        cause = _cause(error)
        message = str(cause) if isinstance(cause, UserError) else f"{type(cause).__name__}: {cause}"
        try:
            job.record().fail(message, "".join(traceback.format_exception(cause)))
        except UserError as unrecorded:
            # The first error is the one to show; a store that is gone cannot take it.
            message += f" (not recorded: {unrecorded})"
        tune.report({"state": "failed", "error": message})
