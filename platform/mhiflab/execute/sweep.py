"""The Tune driver: executes what a plan lacks, as many trials at once as fit."""

import logging
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, Stopper, TuneConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from feinfn.config import DataConfig
from feinfn.data.source import load_scene
from feinfn.errors import UserError
from feinfn.methods.cost import parameters_of
from mhiflab.cluster.code import code_provenance
from mhiflab.cluster.connect import connected, trial_request, with_gpu_memory
from mhiflab.cluster.fit import Fit, fit
from mhiflab.execute.driver import leased, only_driver, take_sigterm_as_ctrl_c
from mhiflab.execute.job import Job
from mhiflab.execute.trial import run_trial
from mhiflab.paths import Lab
from mhiflab.plan.forecast import Forecast
from mhiflab.plan.plan import Entry, Plan
from mhiflab.record.description import study_note, trial_note
from mhiflab.record.store import (
    Store,
    clear_stop,
    close_interrupted,
    open_store,
    study_run,
    tracking_uri,
    trial_runs,
)
from mhiflab.record.writer import finish_study
from mhiflab.study.schema import Stop
from mhiflab.study.spec import Resources

ROOM_FOR_TRIAL = 72
"""Bytes of disk a trial takes per parameter: two states with both Adam moments, average and best
weights, a third while one is replaced, and the best weights as files of their own, thrice."""

ROOM_FOR_STUDY = 200 * 2**20
"""Bytes of disk for the record and Ray's session."""


def check_disk(entries: Sequence[Entry], lab: Lab) -> None:
    """Raise `UserError` where the lab folder's disk cannot hold what the plan will write."""
    sizes = [parameters_of(e.trial.spec.model) for e in entries]
    need = ROOM_FOR_STUDY + ROOM_FOR_TRIAL * sum(sizes)
    existing = next(p for p in (lab.root.resolve(), *lab.root.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < need:
        raise UserError(
            f"{lab.root}: {free / 2**20:.0f} MiB free on this disk, expected at least "
            f"{need / 2**20:.0f} MiB for {len(entries)} trials; free some space or choose "
            "another folder with --lab"
        )


@contextmanager
def _progress(console: Console, epochs: int) -> Iterator[Any]:
    """Yield a function (trial id, epoch, description) that moves one bar with an ETA."""
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
        # ETA from all epochs so far: trials come in waves with pauses between.
        speed_estimate_period=3600,
    )
    done: dict[str, int] = {}
    with bar:
        task = bar.add_task("starting Ray", total=epochs)

        def advance(trial: str, epoch: int, description: str) -> None:
            done[trial] = max(done.get(trial, 0), epoch)
            bar.update(task, completed=sum(done.values()), description=escape(description))

        yield advance


@dataclass(frozen=True)
class Outcome:
    """How the trials of one `run` ended."""

    done: list[str]
    """Run keys."""
    failed: dict[str, str]
    """Messages by run key."""
    left: dict[str, str]
    """Trials that were lost, interrupted or never begun, with what is known; run again."""


class Follow(Callback):
    """Shows each report as it reaches the driver; Tune's own output is off."""

    def __init__(self, jobs: dict[str, Job], advance: Any, log: Any) -> None:
        self.jobs, self.advance, self.log = jobs, advance, log
        self.outcome = Outcome([], {}, {})
        self.lanes: dict[str, str] = {}
        """Runs that count as one training's on the bar, by key."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its callbacks; a console belongs to this process only.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        """Move the bar, or log a trial's end."""
        key, end = trial.config["key"], result.get("state")
        if "warning" in result:
            self.log(f"[yellow]warning[/] {escape(self._who(key))}: {escape(result['warning'])}")
        if "epoch" in result:
            self.outcome.left[key] = f"interrupted after epoch {result['epoch']}"
            self.advance(self.lanes.get(key, key), result["epoch"], self._who(key))
        elif end == "done":
            self.outcome.left.pop(key, None)
            self.outcome.done.append(key)
            self.log(f"[green]done[/]   {escape(self._who(key))}")
        elif end == "failed":
            self.outcome.left.pop(key, None)
            self.outcome.failed[key] = f"{self._who(key)}: {result['error']}"
            self.log(f"[red]failed[/] {escape(self.outcome.failed[key])}")
        elif end == "lost":
            self._lose(key, result["error"])

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Move the bar past epochs that were not needed."""
        key = trial.config["key"]
        if trial.last_result.get("state") != "paused":
            epochs = self.jobs[key].spec.train.epochs
            self.advance(self.lanes.get(key, key), epochs, self._who(key))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Log a trial whose process ended without a word more often than it may."""
        self._lose(trial.config["key"], "its process ended")

    def _who(self, key: str) -> str:
        job = self.jobs[key]
        return f"{job.label}, seed {job.spec.seed}"

    def _lose(self, key: str, reason: str) -> None:
        self.outcome.left[key] = f"lost: {reason}"
        self.log(f"[yellow]lost[/]   {escape(f'{self._who(key)}: {reason}')}")


class StopRules(Stopper):
    """Ends a study's run by its rules; what is left continues with the next."""

    def __init__(self, rules: Stop, started: float, failed: dict[str, str]) -> None:
        self.rules, self.started, self.failed = rules, started, failed

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        """Return whether the hours are over, or too many trials have failed."""
        hours, failures = self.rules.hours, self.rules.failures
        late = hours is not None and time.monotonic() - self.started > 3600 * hours
        return late or (failures is not None and len(self.failed) >= failures)


def _short_name(trial: Any) -> str:
    return trial.config["key"][:12]


def _tune_groups(
    jobs: dict[str, Job], fits: dict[Resources, Fit], follow: Follow, stop: StopRules
) -> None:
    """Run jobs, those of equal resources under one Tuner, so that each group packs the cluster."""
    follow.outcome.left.update(dict.fromkeys(jobs, "not begun"))
    for wanted, placed in fits.items():
        group = {
            key: replace(job, resources=placed.resources, avoid=placed.avoid)
            for key, job in jobs.items()
            if job.resources == wanted
        }
        if not stop.stop_all():
            function = tune.with_parameters(run_trial, jobs=group)
            space = {"key": tune.grid_search(list(group))}
            one = next(iter(group.values()))
            run_tuner(
                function,
                one,
                follow,
                stop,
                space,
                max_concurrent_trials=placed.at_once,
                # A new process for every trial would import torch again. No scheduler stops these
                # trials, so that none leaves a training behind in its process.
                reuse_actors=True,
            )


Drive = Callable[[dict[str, Job], dict[Resources, Fit], Follow, StopRules], None]
"""Starts jobs, given what fits, who follows them and the rules that stop them."""


def run_tuner(
    function: Any,
    alike: Job,
    follow: Follow,
    stop: StopRules,
    space: dict[str, Any],
    **options: Any,
) -> None:
    """Run trials that ask for what one of them asks; `options` are those of Tune's TuneConfig."""
    resources = trial_request(alike.resources, alike.avoid)
    # `Follow` tells of every error, in one line.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    tuner = tune.Tuner(
        tune.with_resources(function, resources),
        param_space=space,
        tune_config=TuneConfig(
            trial_name_creator=_short_name,
            trial_dirname_creator=_short_name,
            **options,
        ),
        run_config=RunConfig(
            name=f"sweep-{uuid.uuid4().hex[:8]}",
            storage_path=str(alike.scratch),
            callbacks=[follow],
            # Only a process that ended reaches Tune: trials report their own failures.
            failure_config=FailureConfig(max_failures=alike.retry.lost),
            stop=stop,
            verbose=0,
        ),
    )
    tuner.fit()


def share_scenes(entries: Sequence[Entry]) -> dict[DataConfig, dict[str, Any]]:
    """Put every scene that trials train or choose on into Ray's object store, once.

    Workers read them in place: one copy a node, however many trials. Test scenes are left out:
    a trial opens them itself when its training has ended.
    """
    import ray

    shared: dict[DataConfig, dict[str, Any]] = {}
    refs: dict[tuple[str, str], Any] = {}
    for entry in entries:
        data = entry.trial.spec.data
        if data in shared or data.inputs == "stored":
            continue
        for name in (*data.train, *data.validation):
            if (data.source, name) not in refs:
                refs[data.source, name] = ray.put(load_scene(data, name))
        shared[data] = {n: refs[data.source, n] for n in (*data.train, *data.validation)}
    return shared


@dataclass(frozen=True)
class Place:
    """Where a sweep keeps things."""

    lab: Lab
    scratch: Path
    """Ray's folders of this sweep; progress only, removed in the end."""


def make_jobs(
    plan: Plan, entries: Sequence[Entry], forecast: Forecast, parent: str, uri: str, place: Place
) -> dict[str, Job]:
    """Return the job of every trial by run key."""
    shared = share_scenes(entries)
    code, here = code_provenance(), replace(place.lab, root=place.lab.root.resolve())
    jobs = {}
    for entry in entries:
        assert entry.survey is not None, "a trial that is not blocked has a survey"
        jobs[entry.key] = Job(
            spec=entry.trial.spec,
            resources=entry.trial.resources,
            survey=entry.survey,
            key=entry.key,
            case=entry.trial.case,
            label=entry.trial.label,
            study=plan.name,
            parent=parent,
            lab=here,
            uri=uri,
            scratch=place.scratch,
            code=code,
            retry=plan.study.retry,
            forecast_s=forecast.seconds.get(entry.key),
            note=trial_note(plan.study, entry.trial.label, entry.trial.spec, str(plan.path)),
            shared=shared.get(entry.trial.spec.data, {}),
        )
    return jobs


def execute(
    plan: Plan,
    entries: Sequence[Entry],
    forecast: Forecast,
    lab: Lab,
    console: Console,
    drive: Drive = _tune_groups,
    dashboard: bool = False,
) -> Outcome:
    """Run trials and return how they ended; what Ctrl-C or a rule cuts off continues later.

    `drive` starts the jobs, which it may replace by others. Disk and resources are checked first,
    before anything is written; raises `UserError`.
    """
    check_disk(entries, lab)
    epochs = sum(entry.trial.spec.train.epochs for entry in entries)
    # A trial that Tune stops frees its workers' resources through the dashboard's state service.
    stops = dashboard or plan.study.stop != Stop()
    with (
        only_driver(lab, plan.name) as own,
        _progress(console, epochs) as advance,
        connected(dashboard=stops) as nodes,
    ):
        take_sigterm_as_ctrl_c()
        wanted = dict.fromkeys(entry.trial.resources for entry in entries)
        if any(one.gpu_memory_gib for one in wanted):
            nodes = with_gpu_memory(nodes)
        fits = {one: fit(one, nodes) for one in wanted}
        uri = tracking_uri(lab)
        store = open_store(lab, uri)
        note = study_note(plan.study, str(plan.path))
        parent = study_run(store, plan.name, plan.path.read_text(encoding="utf-8"), note)
        place = Place(lab, lab.ray.resolve() / uuid.uuid4().hex[:8])
        # What a driver left that was killed: nobody else works in this lab.
        shutil.rmtree(lab.ray, ignore_errors=True)
        place.scratch.mkdir(parents=True)
        with leased(store, parent, own):
            for entry in entries:
                if entry.run is not None:
                    clear_stop(store, entry.run)
            jobs = make_jobs(plan, entries, forecast, parent, uri, place)
            follow = Follow(jobs, advance, console.print)
            stop = StopRules(plan.study.stop, time.monotonic(), follow.outcome.failed)
            try:
                drive(jobs, fits, follow, stop)
            finally:
                _close(store, lab, plan.name, jobs)
    shutil.rmtree(place.scratch, ignore_errors=True)
    return follow.outcome


def _close(store: Store, lab: Lab, study: str, jobs: dict[str, Job]) -> None:
    """Leave no run of this sweep open; where the store is away, the next run does it.

    Whether the study is finished is for the next comparison with its whole plan to say.
    """
    with suppress(UserError):
        runs = trial_runs(store)
        own = [runs[key].info for key in jobs if key in runs]
        close_interrupted(store, [info.run_id for info in own if info.status == "RUNNING"])
        finish_study(lab, store.uri, study, complete=False)
