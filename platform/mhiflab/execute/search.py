"""The Tune driver of searches: asks for suggestions, trains them, and keeps the test scenes closed.

Every suggestion is put on record before it is trained. A new driver therefore continues what an
earlier one left, whatever became of Tune's own state.

The Tune driver of a population: trains all members to the next comparison, again and again.

Who is replaced follows from the record alone, so a new driver goes on where another one ended.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mlflow.entities import Run
from pydantic import TypeAdapter
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher
from rich.console import Console

from feinfn.files import BEST, STATE, write_atomic
from feinfn.training.checkpoint import epochs_begun, newest_state, parse_state, save_state
from mhiflab.cluster.fit import Fit
from mhiflab.execute.job import Job
from mhiflab.execute.sweep import Follow, Outcome, StopRules, execute, run_tuner
from mhiflab.execute.trial import run_trial
from mhiflab.paths import Lab
from mhiflab.plan.forecast import Forecast
from mhiflab.plan.plan import Entry, Plan
from mhiflab.plan.search import SearchPlan, Suggestion, outcome, refresh_search
from mhiflab.plan.suggest import PastSuggestion, suggest
from mhiflab.record.description import trial_note
from mhiflab.record.store import (
    SEARCH_TAG,
    STOPPED_TAG,
    Store,
    metric_history,
    open_store,
    stop_run,
    trial_runs,
    write_tag,
)
from mhiflab.record.writer import replay
from mhiflab.study.schema import Study
from mhiflab.study.search import Search
from mhiflab.study.spec import Resources, Spec


def run_suggestion(config: dict[str, Any], template: Job) -> None:
    """Execute a suggestion as a Tune function; `config` holds its run key, label and spec."""
    spec = TypeAdapter(Spec).validate_json(config["spec"])
    job = replace(template, spec=spec, key=config["key"], label=config["label"])
    run_trial(config, {job.key: job})


def suggested(
    jobs: dict[str, Job], plan: SearchPlan, template: Job, study: Study, one: Suggestion
) -> Job:
    """Add the job of a suggestion to the jobs by run key, and return it."""
    label = f"#{one.index} ({one.text})"
    jobs[one.key] = replace(
        template,
        spec=one.trial.spec,
        key=one.key,
        case=f"{plan.base.case}/search",
        label=label,
        note=trial_note(study, label, one.trial.spec, plan.where),
    )
    return jobs[one.key]


class Suggester(Searcher):
    """Hands Tune the suggestions that have no result yet: unfinished ones first, then new ones."""

    def __init__(self, plan: SearchPlan, template: Job, jobs: dict[str, Job], study: Study) -> None:
        super().__init__()
        self.plan, self.template, self.jobs, self.study = plan, template, jobs, study
        self.store = open_store(template.lab, template.uri)
        self.known = {one.index: one for one in plan.suggestions}
        self.waiting = [one.index for one in plan.suggestions if not one.finished]
        self.live: dict[str, tuple[Suggestion, str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its searchers; all that this one knows is on record.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Leave nothing: all is on record."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Leave all as it is: it came from the record."""

    def suggest(self, trial_id: str) -> Any:
        """Return the next suggestion to be trained; those with a recorded result are passed by."""
        while self.waiting or len(self.known) < self.plan.search.trials:
            one = self._next()
            running = {other.key for other, _ in self.live.values()}
            run_id = self._join(one)
            self._refresh(one.key)
            if self.known[one.index].finished or one.key in running:
                continue
            self.live[trial_id] = one, run_id
            spec = json.dumps(asdict(one.trial.spec))
            return {"key": one.key, "label": self.jobs[one.key].label, "spec": spec}
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Record where a trial was stopped, and read its result."""
        one, run_id = self.live.pop(trial_id)
        # A worker that was stopped could not bring the end of its journal to the store.
        replay(self.template.lab, self.template.uri)
        # A trial that ends by itself says so in its last report.
        if result and not error and "state" not in result:
            stop_run(self.store, run_id, result["epoch"])
        self._refresh(one.key)

    def _next(self) -> Suggestion:
        if self.waiting:
            return self.known[self.waiting.pop(0)]
        index = next(i for i in range(self.plan.search.trials) if i not in self.known)
        if index == 0:
            return self.plan.suggestion(index, self.plan.values_of_base())
        told = [
            PastSuggestion(one.values, one.objectives, one.state == "failed")
            for _, one in sorted(self.known.items())
        ]
        return self.plan.suggestion(index, suggest(self.plan.search, index, told))

    def _join(self, one: Suggestion) -> str:
        """Put a suggestion on record, with a run if there is none, and return the run's id."""
        self.known[one.index] = one
        job = suggested(self.jobs, self.plan, self.template, self.study, one)
        run = trial_runs(self.store, one.key).get(one.key)
        if run is None:
            # Its worker finds this run and fills it.
            job.record().close()
            run = trial_runs(self.store, one.key)[one.key]
        run_id = run.info.run_id
        place = f"{SEARCH_TAG}.{self.plan.id}.{one.index}"
        write_tag(self.store, run_id, place, json.dumps(one.values))
        return run_id

    def _refresh(self, key: str) -> None:
        runs = trial_runs(self.store, key)
        for index, one in self.known.items():
            if one.key == key:
                self.known[index] = outcome(self.plan, one, runs, self.store, self.template.lab)


class Median(MedianStoppingRule):
    """Median stopping where the row that says how a trial ended carries no metric."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        """Keep a last row that has the metric."""
        if self._metric in result:
            super().on_trial_complete(tune_controller, trial, result)


def scheduler_of(search: Search, epochs: int) -> TrialScheduler:
    """Return Tune's scheduler; no trial is judged at its last epoch, when it is trained anyway."""
    (metric, mode), wanted = next(iter(search.objectives.items())), search.scheduler
    about = {"time_attr": "epoch", "metric": metric, "mode": mode}
    if wanted.name == "asha":
        return ASHAScheduler(
            **about,
            max_t=epochs - 1,
            grace_period=wanted.grace_epochs,
            reduction_factor=wanted.reduction,
            stop_last_trials=False,
        )
    if wanted.name == "median":
        return Median(**about, grace_period=wanted.grace_epochs)
    return FIFOScheduler()


def execute_searches(
    plan: Plan, entries: Sequence[Entry], forecast: Forecast, lab: Lab, console: Console
) -> Outcome:
    """Train the suggestions that stand-in entries wait for, and return how they ended.

    Raises `UserError` like `execute`.
    """
    lacking = [one for one in plan.searches if not one.complete]

    def drive(
        jobs: dict[str, Job], fits: dict[Resources, Fit], follow: Follow, stop: StopRules
    ) -> None:
        templates = {one.id: replace(jobs[f"{one.id}.0"], test=False) for one in lacking}
        # From here on the jobs are those of the suggestions.
        jobs.clear()
        for search in lacking:
            placed = fits[search.base.resources]
            template = replace(templates[search.id], resources=placed.resources, avoid=placed.avoid)
            if search.search.population:
                drive_population(
                    search,
                    template,
                    partial(suggested, jobs, search, template, plan.study),
                    follow,
                    stop,
                    placed.at_once,
                )
                continue
            # As it stands now: searches may share runs.
            store = open_store(lab, template.uri)
            now = refresh_search(search, trial_runs(store), store, lab)
            run_tuner(
                tune.with_parameters(run_suggestion, template=template),
                template,
                follow,
                stop,
                {},
                search_alg=Suggester(now, template, jobs, plan.study),
                scheduler=scheduler_of(search.search, search.base.spec.train.epochs),
                num_samples=search.search.trials,
                max_concurrent_trials=placed.at_once,
            )

    nested = any(one.base.resources.workers for one in plan.searches)
    return execute(plan, entries, forecast, lab, console, drive, dashboard=nested)


def drive_population(
    search: SearchPlan,
    template: Job,
    job_of: Callable[[Suggestion], Job],
    follow: Follow,
    stop: StopRules,
    at_once: int,
) -> None:
    """Train a population to its last epoch, or to where trials were lost or a rule said stop.

    `job_of` makes and registers the job of a member.
    """
    store, lab = open_store(template.lab, template.uri), template.lab
    before: tuple[int | None, list[str]] | None = None
    while not stop.stop_all():
        # A worker that was lost could not bring the end of its journal to the store.
        replay(lab, template.uri)
        runs = trial_runs(store)
        now = refresh_search(search, runs, store, lab)
        members = {one.key: one for one in now.suggestions if one.index < now.search.trials}
        leave(now, members, runs, store, follow)
        jobs = {}
        for key, one in members.items():
            follow.lanes[key] = f"{search.id}.{one.index}"
            if not one.finished and (one.epochs < (now.until or 0) or now.until == ends(search)):
                jobs[key] = replace(job_of(one), until=now.until)
                take_over(jobs[key], search, one, runs, store)
        if not jobs or (now.until, list(jobs)) == before:
            return
        before = now.until, list(jobs)
        run_tuner(
            tune.with_parameters(run_trial, jobs=jobs),
            template,
            follow,
            stop,
            {"key": tune.grid_search(list(jobs))},
            max_concurrent_trials=at_once,
            reuse_actors=True,
        )


def ends(search: SearchPlan) -> int:
    """Return the epochs of a whole training."""
    return search.base.spec.train.epochs


def leave(
    now: SearchPlan,
    members: dict[str, Suggestion],
    runs: dict[str, Run],
    store: Store,
    follow: Follow,
) -> None:
    """Close the runs of what members were before they took over another's weights."""
    for one in now.suggestions:
        if one.key not in members and one.key in runs:
            follow.outcome.left.pop(one.key, None)
            run = runs[one.key]
            if run.info.status in ("RUNNING", "KILLED") and STOPPED_TAG not in run.data.tags:
                stop_run(store, run.info.run_id, one.epochs)


def take_over(
    job: Job, search: SearchPlan, one: Suggestion, runs: dict[str, Run], store: Store
) -> None:
    """Give a member that has just changed the weights and the history of the run it goes on from.

    Where that run's state is gone or has gone on, the member is trained from the start instead,
    with the same result: its values change at the same epochs.
    """
    if not one.earlier or one.epochs >= one.since:
        return
    donor = search.lineage(one.index, one.earlier)
    copy_state(job.lab, donor.key, job.key, one.since)
    run = runs[donor.key]
    names = [name for name in run.data.metrics if not name.startswith("system/")]
    history = metric_history(store, run.info.run_id, names)
    with job.record() as record:
        for epoch in range(1, one.since + 1):
            told = {name: found[epoch] for name, found in history.items() if epoch in found}
            record.metrics(epoch, told)


def copy_state(lab: Lab, donor: str, key: str, epochs: int) -> None:
    """Copy a training state of at most so many epochs to another run, unless that has its own."""
    here, there = lab.checkpoints(donor), lab.checkpoints(key)
    payload = None if (there / STATE).exists() else newest_state(here / STATE, lambda text: None)
    if payload is None:
        return
    state = parse_state(payload, torch.device("cpu"), here / STATE)
    if epochs_begun(state) > epochs:
        return
    there.mkdir(parents=True, exist_ok=True)
    if (here / BEST).exists():
        write_atomic(there / BEST, partial(shutil.copyfile, here / BEST))
    save_state(there / STATE, state)
