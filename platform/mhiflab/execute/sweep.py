"""The Tune driver: execute the missing trials of a plan, as many at once as fit."""

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ray import tune
from ray.exceptions import RayTaskError
from ray.tune import Callback, FailureConfig, RunConfig, Stopper, TuneConfig
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.cluster.connect import connected, trial_request, with_gpu_memory
from mhiflab.cluster.fit import Fit, fit
from mhiflab.console import out
from mhiflab.execute.driver import leased, only_driver, take_sigterm_as_ctrl_c
from mhiflab.execute.job import Job, check_disk, make_jobs
from mhiflab.paths import Lab
from mhiflab.plan.forecast import Forecast, Speed
from mhiflab.plan.forecast import forecast as forecast_from
from mhiflab.plan.plan import Entry, Plan
from mhiflab.plan.show import work_of
from mhiflab.progress import Steps, TrialBar
from mhiflab.record.store import (
    Store,
    clear_stop,
    close_interrupted,
    open_store,
    tracking_uri,
    trial_runs,
)
from mhiflab.record.studies import study_note, study_run
from mhiflab.record.writer import finish_study
from mhiflab.study.schema import Stop
from mhiflab.study.spec import Resources


@dataclass(frozen=True)
class Outcome:
    """End states of the trials of one `mhiflab run`."""

    done: list[str]
    """Run keys."""
    failed: dict[str, str]
    """Messages by run key."""
    unfinished: dict[str, str]
    """States of lost, interrupted and waiting trials by run key; the next run continues them."""


_COLOURS = {"done": "green", "failed": "red", "lost": "yellow"}
"""End states of a trial, each with its colour on the console."""


class TrialMonitor(Callback):
    """A callback that shows each report of a trial, in place of Tune's output."""

    def __init__(self, jobs: dict[str, Job], forecast: Forecast, bar: TrialBar) -> None:
        self.jobs, self.forecast, self.bar = jobs, forecast, bar
        self.outcome = Outcome([], {}, {})
        self.lanes: dict[str, str] = {}
        """Lane of the bar that a run moves, by run key, unless it is the key itself."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its callbacks; a console belongs to this process only.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        """Move the bar, or log a trial's end."""
        key, name = trial.config["key"], self._name(trial)
        if "warning" in result:
            out.print(f"[yellow]warning[/] {escape(name)}: {escape(result['warning'])}")
        work = self.jobs[key].work
        if "epoch" in result:
            self.outcome.unfinished[key] = f"interrupted after epoch {result['epoch']}"
            epoch_s = result["train_seconds"] / result["epoch"]
            self._move(key, Steps(epochs=result["epoch"]), epoch_s, name)
            self._forecast(work.speed(result["epoch"], result["train_seconds"]))
        elif "images" in result:
            images, total = result["images"], result["of_images"]
            self.outcome.unfinished[key] = f"interrupted after {images} of {total} test images"
            # Tests begin when all epochs are done, perhaps by an earlier driver.
            steps, image_s = work.steps(), result["expected_test_s"] / total
            self._move(key, replace(steps, images=images), image_s, f"{name}, test")
            if not work.spec.trained:
                self._forecast(work.speed(test_s=result["expected_test_s"]))
        elif result.get("state") in _COLOURS:
            self._end(trial, result["state"], result.get("error", ""))

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Move the bar past the steps that a trial did not need."""
        key = trial.config["key"]
        if trial.last_result.get("state") != "paused":
            job = self.jobs[key]
            whole = job.work.steps(job.test)
            self.bar.end(self.lanes.get(key, key), whole, self._name(trial))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Log a trial that ended without an end state, and why."""
        error, reason = trial.get_pickled_error(), "its process ended"
        if isinstance(error, RayTaskError):
            reason = f"{type(error.cause).__name__}: {error.cause}".splitlines()[0]
        self._end(trial, "lost", reason)

    def _move(self, key: str, done: Steps, step_s: float, text: str) -> None:
        job = self.jobs[key]
        whole = job.work.steps(job.test)
        self.bar.move(self.lanes.get(key, key), done, whole, step_s, text)

    def _forecast(self, speed: Speed) -> None:
        """Forecast the trials that had none, if this is the first of their model that tells."""
        expected = forecast_from(self.forecast.unknown, [speed])
        if not expected.seconds:
            return
        self.bar.expect(expected.seconds)
        if len(expected.seconds) > 1:
            out.print(expected.line)
        self.forecast = expected

    def _name(self, trial: Any) -> str:
        job = self.jobs[trial.config["key"]]
        return f"{job.label}, seed {job.spec.seed}"

    def _end(self, trial: Any, state: str, reason: str) -> None:
        key, text = trial.config["key"], self._name(trial) + (f": {reason}" if reason else "")
        self.outcome.unfinished.pop(key, None)
        if state == "done":
            self.outcome.done.append(key)
        elif state == "failed":
            self.outcome.failed[key] = text
        else:
            self.outcome.unfinished[key] = f"lost: {reason}"
        out.print(f"[{_COLOURS[state]}]{state}[/]{' ' * (7 - len(state))}{escape(text)}")


class StopRules(Stopper):
    """A Tune stopper that follows the study's rules; the next run continues the rest."""

    def __init__(self, rules: Stop, failed: dict[str, str]) -> None:
        self.rules, self.started, self.failed = rules, time.monotonic(), failed

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Return True if the hours are over or too many trials have failed."""
        hours, failures = self.rules.hours, self.rules.failures
        late = hours is not None and time.monotonic() - self.started > 3600 * hours
        return late or (failures is not None and len(self.failed) >= failures)


@dataclass(frozen=True)
class Sweep:
    """Trials under way."""

    plan: Plan
    store: Store
    jobs: dict[str, Job]
    """Jobs by run key."""
    fits: dict[Resources, Fit]
    monitor: TrialMonitor
    stop: StopRules

    def placed(self, job: Job) -> tuple[Job, int]:
        """Return a job with its place on the cluster, and the number of such jobs at a time."""
        place = self.fits[job.resources]
        return replace(job, resources=place.resources, avoid=place.avoid), place.at_once


def execute(
    plan: Plan,
    entries: Sequence[Entry],
    forecast: Forecast,
    lab: Lab,
    drive: Callable[[Sweep], None] | None = None,
    dashboard: bool = False,
) -> Outcome:
    """Run trials and return their outcome; the next run continues those that are interrupted.

    `drive` starts a sweep's jobs and may replace them; by default `_tune_jobs`. Raises `UserError`,
    before anything is written, if the disk or the cluster's resources are too small or another
    driver is at work.
    """
    check_disk(entries, lab)
    steps = {entry.key: work_of(entry).steps(test=drive is None) for entry in entries}
    bar = TrialBar(steps, forecast.seconds, forecast.slots, out)
    # When Tune stops a trial, the dashboard's state service frees its workers' resources.
    needs_dashboard = dashboard or plan.study.stop != Stop()
    with (
        only_driver(lab, plan.name) as driver,
        bar.progress,
        connected(dashboard=needs_dashboard) as nodes,
    ):
        take_sigterm_as_ctrl_c()
        resource_kinds = dict.fromkeys(entry.trial.resources for entry in entries)
        if any(resources.gpu_memory_gib for resources in resource_kinds):
            nodes = with_gpu_memory(nodes)
        fits = {resources: fit(resources, nodes) for resources in resource_kinds}
        store = open_store(lab, tracking_uri(lab))
        note = study_note(plan.study, str(plan.path))
        parent = study_run(store, plan.name, plan.path.read_text(encoding="utf-8"), note)
        # Remove the files of killed drivers: no other driver works in this lab.
        shutil.rmtree(lab.ray, ignore_errors=True)
        scratch = lab.ray.resolve() / uuid.uuid4().hex[:8]
        scratch.mkdir(parents=True)
        with leased(store, parent, driver):
            for entry in entries:
                if entry.run is not None:
                    clear_stop(store, entry.run.mlflow)
            jobs = make_jobs(plan, entries, forecast, parent, store, lab, scratch)
            monitor = TrialMonitor(jobs, forecast, bar)
            stop = StopRules(plan.study.stop, monitor.outcome.failed)
            try:
                (drive or _tune_jobs)(Sweep(plan, store, jobs, fits, monitor, stop))
            finally:
                _close(store, lab, plan.name, jobs)
    shutil.rmtree(scratch, ignore_errors=True)
    return monitor.outcome


def _close(store: Store, lab: Lab, study: str, jobs: dict[str, Job]) -> None:
    """Close the open runs of this sweep; if the store is away, the next `mhiflab run` does it.

    The study stays open: only a comparison with its whole plan tells if it is complete.
    """
    with suppress(UserError):
        for key, run in trial_runs(store).items():
            if key in jobs and run.info.status == "RUNNING":
                close_interrupted(store, run.info.run_id)
        finish_study(lab, store.uri, study, complete=False)


def _tune_jobs(sweep: Sweep) -> None:
    """Run a sweep's jobs, one Tuner for each kind of resources, so that each packs the cluster."""
    sweep.monitor.outcome.unfinished.update(dict.fromkeys(sweep.jobs, "not begun"))
    for resources in sweep.fits:
        placed = [sweep.placed(job) for job in sweep.jobs.values() if job.resources == resources]
        jobs = {job.key: job for job, _ in placed}
        if not sweep.stop.stop_all():
            run_tuner(
                sweep,
                tune.with_parameters(_run_trial, jobs=jobs),
                placed[0][0],
                space={"key": tune.grid_search(list(jobs))},
                max_concurrent_trials=placed[0][1],
                # A new process for every trial would import torch again. Reuse is safe, because no
                # scheduler stops these trials halfway.
                reuse_actors=True,
            )


def _run_trial(config: dict[str, Any], jobs: dict[str, Job]) -> None:
    """Execute a trial; its process alone loads what that needs."""
    from mhiflab.execute.trial import run_trial

    run_trial(config, jobs)


def run_tuner(
    sweep: Sweep,
    function: Any,
    example: Job,
    space: dict[str, Any] | None = None,
    **options: Any,
) -> None:
    """Run Tune trials of a function; `options` are those of Tune's TuneConfig.

    Every trial requests the resources of `example`.
    """
    # `TrialMonitor` prints every error in one line.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    tuner = tune.Tuner(
        tune.with_resources(function, trial_request(example.resources, example.avoid)),
        param_space=space,
        tune_config=TuneConfig(
            trial_name_creator=_short_name,
            trial_dirname_creator=_short_name,
            **options,
        ),
        run_config=RunConfig(
            name=f"sweep-{uuid.uuid4().hex[:8]}",
            storage_path=str(example.scratch),
            callbacks=[sweep.monitor],
            # Tune sees only dead processes: trials report their failures themselves.
            failure_config=FailureConfig(max_failures=example.retry.lost),
            stop=sweep.stop,
            verbose=0,
        ),
    )
    tuner.fit()


def _short_name(trial: Any) -> str:
    return trial.config["key"][:12]
