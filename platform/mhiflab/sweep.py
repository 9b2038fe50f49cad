"""The Tune driver: executes what a plan lacks, as many trials at once as fit."""

import fcntl
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune import Callback, RunConfig, TuneConfig
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from feinfn.config import DataConfig
from feinfn.data.source import load_scene
from feinfn.errors import UserError
from feinfn.model import FeINFN, count_parameters
from mhiflab.cluster import DRIVER_CPUS, concurrency, connected
from mhiflab.paths import Lab
from mhiflab.plan import Plan
from mhiflab.provenance import code_provenance
from mhiflab.spec import Resources
from mhiflab.tracking import finish_study, open_store, study_run, tracking_uri
from mhiflab.trial import run_trial
from mhiflab.worker import Job

ROOM_FOR_TRIAL = 40
"""Bytes of disk a trial takes per parameter: state with both Adam moments and average, the best
weights twice, and each file once more while it is replaced."""
ROOM_FOR_STUDY = 200 * 2**20
"""Bytes of disk for the record and Ray's session."""


def check_disk(plan: Plan, lab: Lab) -> None:
    """Raise `UserError` where the lab folder's disk cannot hold what the plan will write."""
    with torch.device("meta"):
        sizes = [count_parameters(FeINFN(e.trial.spec.model)) for e in plan.missing]
    need = ROOM_FOR_STUDY + ROOM_FOR_TRIAL * sum(sizes)
    existing = next(p for p in (lab.root.resolve(), *lab.root.resolve().parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if free < need:
        raise UserError(
            f"{lab.root}: {free / 2**20:.0f} MiB free on this disk, expected at least "
            f"{need / 2**20:.0f} MiB for {len(plan.missing)} trials; free some space or choose "
            "another folder with --lab"
        )


@contextmanager
def only_driver(lab: Lab) -> Iterator[None]:
    """Hold the lab for one driver at a time; raise `UserError` where another works in it.

    The system releases the lock with the process, however it ends.
    """
    lab.root.mkdir(parents=True, exist_ok=True)
    with (lab.root / "driver.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{lab.root}: another mhiflab run is at work in this folder; wait for it, stop it, "
                "or choose another folder with --lab"
            ) from None
        yield


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


class Follow(Callback):
    """Shows each report as it reaches the driver; Tune's own output is off."""

    def __init__(self, jobs: dict[str, Job], advance: Any, log: Any) -> None:
        self.jobs, self.advance, self.log = jobs, advance, log
        self.failures: list[str] = []

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its callbacks; a console belongs to this process only.
        return {}

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict, **info: Any
    ) -> None:
        """Move the bar, or log a trial's end."""
        if "epoch" in result:
            self.advance(trial.config["key"], result["epoch"], self._who(trial))
        elif result.get("state") == "done":
            self.log(f"[green]done[/]   {escape(self._who(trial))}")
        elif result.get("state") == "failed":
            self._fail(trial, result["error"])

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Move the bar past epochs that were not needed."""
        epochs = self.jobs[trial.config["key"]].spec.train.epochs
        self.advance(trial.config["key"], epochs, self._who(trial))

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Log a trial whose process ended without a word."""
        self._fail(trial, "its process ended; run again to continue from its last epoch")

    def _who(self, trial: Any) -> str:
        job = self.jobs[trial.config["key"]]
        return f"{job.label}, seed {job.spec.seed}"

    def _fail(self, trial: Any, reason: str) -> None:
        self.failures.append(f"{self._who(trial)}: {reason}")
        self.log(f"[red]failed[/] {escape(self.failures[-1])}")


def _short_name(trial: Any) -> str:
    return trial.config["key"][:12]


def _tune_groups(
    jobs: dict[str, Job], fits: dict[Resources, int], scratch: Path, advance: Any, log: Any
) -> list[str]:
    """Run jobs, those of equal resources under one Tuner; return one message per failed trial.

    Trials of equal resources go together, so that each group packs the cluster exactly.
    """
    failures: list[str] = []
    for wanted, at_once in fits.items():
        group = {key: job for key, job in jobs.items() if job.resources == wanted}
        follow = Follow(group, advance, log)
        space = {"key": tune.grid_search(list(group))}
        function = tune.with_parameters(run_trial, jobs=group)
        run_tuner(function, wanted, follow, scratch, space, max_concurrent_trials=at_once)
        failures += follow.failures
    return failures


def run_tuner(
    function: Any,
    wanted: Resources,
    follow: Follow,
    scratch: Path,
    space: dict[str, Any],
    **options: Any,
) -> None:
    """Run trials of equal resources under one Tuner; `options` are those of its TuneConfig."""
    own = {"CPU": wanted.cpus_per_worker, "GPU": wanted.gpus_per_worker}
    resources = {"CPU": DRIVER_CPUS} if wanted.workers else {k: v for k, v in own.items() if v}
    tuner = tune.Tuner(
        tune.with_resources(function, resources),
        param_space=space,
        tune_config=TuneConfig(
            trial_name_creator=_short_name, trial_dirname_creator=_short_name, **options
        ),
        run_config=RunConfig(
            name=f"sweep-{uuid.uuid4().hex[:8]}",
            storage_path=str(scratch),
            callbacks=[follow],
            verbose=0,
        ),
    )
    tuner.fit()


def share_scenes(plan: Plan) -> dict[DataConfig, dict[str, Any]]:
    """Put every scene that missing trials train or choose on into Ray's object store, once.

    Workers read them in place: one copy a node, however many trials. Test scenes are left out:
    a trial opens them itself when its training has ended.
    """
    import ray

    shared: dict[DataConfig, dict[str, Any]] = {}
    refs: dict[tuple[str, str], Any] = {}
    for entry in plan.missing:
        data = entry.trial.spec.data
        if data in shared or data.inputs == "stored":
            continue
        for name in (*data.train, *data.validation):
            if (data.source, name) not in refs:
                refs[data.source, name] = ray.put(load_scene(data, name))
        shared[data] = {n: refs[data.source, n] for n in (*data.train, *data.validation)}
    return shared


def _jobs(plan: Plan, parent: str, uri: str, lab: Lab, scratch: Path) -> dict[str, Job]:
    """Return the job of every missing trial by run key."""
    shared = share_scenes(plan)
    code, here = code_provenance(), replace(lab, root=lab.root.resolve())
    return {
        entry.key: Job(
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
            scratch=scratch,
            code=code,
            shared=shared.get(entry.trial.spec.data, {}),
        )
        for entry in plan.missing
    }


def execute(
    plan: Plan, lab: Lab, console: Console, drive: Any = _tune_groups, dashboard: bool = False
) -> list[str]:
    """Run every missing trial and return one message per failed one; `drive` starts the jobs.

    Disk and resources are checked first, before anything is written; raises `UserError`.
    """
    check_disk(plan, lab)
    epochs = sum(entry.trial.spec.train.epochs for entry in plan.missing)
    with only_driver(lab), _progress(console, epochs) as advance, connected(dashboard) as cluster:
        wanted = dict.fromkeys(entry.trial.resources for entry in plan.missing)
        fits = {one: concurrency(one, cluster) for one in wanted}
        uri = tracking_uri(lab)
        store = open_store(lab, uri)
        parent = study_run(store, plan.name, plan.path.read_text())
        scratch = lab.ray.resolve() / uuid.uuid4().hex[:8]
        scratch.mkdir(parents=True)
        jobs = _jobs(plan, parent, uri, lab, scratch)
        failures: list[str] = drive(jobs, fits, scratch, advance, console.print)
        finish_study(store, parent, complete=not failures)
    # Ray's folders hold progress only; training state and record lie elsewhere.
    shutil.rmtree(scratch, ignore_errors=True)
    return failures
