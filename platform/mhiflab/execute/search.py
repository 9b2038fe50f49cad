"""Tune drivers of searches: train suggestions or a population, with the test scenes closed.

Every suggestion is recorded before it is trained, and the record alone decides which members of a
population are replaced. So a new driver continues where an earlier one stopped, without Tune's
own state. A population is trained to its next comparison, again and again.
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
from mhiflab.execute.sweep import Outcome, StopRules, TrialMonitor, execute, run_tuner
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


def register_suggestion(
    jobs: dict[str, Job], plan: SearchPlan, template: Job, study: Study, suggestion: Suggestion
) -> Job:
    """Add the job of a suggestion to `jobs` by run key, and return it."""
    label = f"#{suggestion.index} ({suggestion.text})"
    jobs[suggestion.key] = replace(
        template,
        spec=suggestion.trial.spec,
        key=suggestion.key,
        case=f"{plan.base.case}/search",
        label=label,
        note=trial_note(study, label, suggestion.trial.spec, plan.where),
    )
    return jobs[suggestion.key]


class Suggester(Searcher):
    """A Tune searcher of suggestions without a result: unfinished ones first, then new ones."""

    def __init__(self, plan: SearchPlan, template: Job, jobs: dict[str, Job], study: Study) -> None:
        super().__init__()
        self.plan, self.template, self.jobs, self.study = plan, template, jobs, study
        self.store = open_store(template.lab, template.uri)
        self.suggestions = {one.index: one for one in plan.suggestions}
        self.waiting = [one.index for one in plan.suggestions if not one.finished]
        self.running: dict[str, tuple[Suggestion, str]] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its searchers, but this one reads its state from the record.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: the state is on record."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the state came from the record."""

    def suggest(self, trial_id: str) -> Any:
        """Return the next suggestion to train; skip those with a recorded result."""
        while self.waiting or len(self.suggestions) < self.plan.search.trials:
            suggestion = self._next()
            running_keys = {other.key for other, _ in self.running.values()}
            run_id = self._join(suggestion)
            self._refresh(suggestion.key)
            if self.suggestions[suggestion.index].finished or suggestion.key in running_keys:
                continue
            self.running[trial_id] = suggestion, run_id
            spec = json.dumps(asdict(suggestion.trial.spec))
            return {"key": suggestion.key, "label": self.jobs[suggestion.key].label, "spec": spec}
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Record the epoch at which a trial was stopped, and read its result."""
        suggestion, run_id = self.running.pop(trial_id)
        # A stopped worker could not upload the end of its journal.
        replay(self.template.lab, self.template.uri)
        # The last report of a trial that ends by itself has a state.
        if result and not error and "state" not in result:
            stop_run(self.store, run_id, result["epoch"])
        self._refresh(suggestion.key)

    def _next(self) -> Suggestion:
        if self.waiting:
            return self.suggestions[self.waiting.pop(0)]
        index = next(i for i in range(self.plan.search.trials) if i not in self.suggestions)
        if index == 0:
            return self.plan.suggestion(index, self.plan.values_of_base())
        results = [
            PastSuggestion(one.values, one.objectives, one.state == "failed")
            for _, one in sorted(self.suggestions.items())
        ]
        return self.plan.suggestion(index, suggest(self.plan.search, index, results))

    def _join(self, suggestion: Suggestion) -> str:
        """Record a suggestion, in a new run if it has none, and return the run's id."""
        self.suggestions[suggestion.index] = suggestion
        job = register_suggestion(self.jobs, self.plan, self.template, self.study, suggestion)
        run = trial_runs(self.store, suggestion.key).get(suggestion.key)
        if run is None:
            # Its worker will find this run by key and fill it.
            job.record().close()
            run = trial_runs(self.store, suggestion.key)[suggestion.key]
        run_id = run.info.run_id
        tag = f"{SEARCH_TAG}.{self.plan.id}.{suggestion.index}"
        write_tag(self.store, run_id, tag, json.dumps(suggestion.values))
        return run_id

    def _refresh(self, key: str) -> None:
        runs = trial_runs(self.store, key)
        for index, suggestion in self.suggestions.items():
            if suggestion.key == key:
                self.suggestions[index] = outcome(
                    self.plan, suggestion, runs, self.store, self.template.lab
                )


class Median(MedianStoppingRule):
    """Median stopping that ignores last reports without a metric, which only hold an end state."""

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        """Pass on a last report that has the metric."""
        if self._metric in result:
            super().on_trial_complete(tune_controller, trial, result)


def scheduler_of(search: Search, epochs: int) -> TrialScheduler:
    """Return Tune's scheduler; it never stops a trial at its last epoch, which saves nothing."""
    (metric, mode), rule = next(iter(search.objectives.items())), search.scheduler
    common = {"time_attr": "epoch", "metric": metric, "mode": mode}
    if rule.name == "asha":
        return ASHAScheduler(
            **common,
            max_t=epochs - 1,
            grace_period=rule.grace_epochs,
            reduction_factor=rule.reduction,
            stop_last_trials=False,
        )
    if rule.name == "median":
        return Median(**common, grace_period=rule.grace_epochs)
    return FIFOScheduler()


def execute_searches(
    plan: Plan, entries: Sequence[Entry], forecast: Forecast, lab: Lab, console: Console
) -> Outcome:
    """Train the suggestions of a plan's incomplete searches, and return their outcome.

    `entries` stand for the searches in the plan. Raises `UserError` as `execute` does.
    """
    incomplete = [one for one in plan.searches if not one.complete]

    def drive(
        jobs: dict[str, Job], fits: dict[Resources, Fit], monitor: TrialMonitor, stop: StopRules
    ) -> None:
        templates = {one.id: replace(jobs[f"{one.id}.0"], test=False) for one in incomplete}
        # From here on, `jobs` holds the jobs of suggestions.
        jobs.clear()
        for search in incomplete:
            placement = fits[search.base.resources]
            template = replace(
                templates[search.id], resources=placement.resources, avoid=placement.avoid
            )
            if search.search.population:
                drive_population(
                    search,
                    template,
                    partial(register_suggestion, jobs, search, template, plan.study),
                    monitor,
                    stop,
                    placement.at_once,
                )
                continue
            # Read it again: searches may share runs.
            store = open_store(lab, template.uri)
            current = refresh_search(search, trial_runs(store), store, lab)
            run_tuner(
                tune.with_parameters(run_suggestion, template=template),
                template,
                monitor,
                stop,
                {},
                search_alg=Suggester(current, template, jobs, plan.study),
                scheduler=scheduler_of(search.search, search.base.spec.train.epochs),
                num_samples=search.search.trials,
                max_concurrent_trials=placement.at_once,
            )

    nested = any(one.base.resources.workers for one in plan.searches)
    return execute(plan, entries, forecast, lab, console, drive, dashboard=nested)


def drive_population(
    search: SearchPlan,
    template: Job,
    job_of: Callable[[Suggestion], Job],
    monitor: TrialMonitor,
    stop: StopRules,
    at_once: int,
) -> None:
    """Train a population to its last epoch; end early if trials are lost or a stop rule applies.

    `job_of` makes and registers the job of a member.
    """
    store, lab = open_store(template.lab, template.uri), template.lab
    last_round: tuple[int | None, list[str]] | None = None
    while not stop.stop_all():
        # A lost worker could not upload the end of its journal.
        replay(lab, template.uri)
        runs = trial_runs(store)
        current = refresh_search(search, runs, store, lab)
        members = {
            member.key: member
            for member in current.suggestions
            if member.index < current.search.trials
        }
        close_left_runs(current, members, runs, store, monitor)
        jobs = {}
        for key, member in members.items():
            monitor.lanes[key] = f"{search.id}.{member.index}"
            if not member.finished and (
                member.epochs < (current.until or 0) or current.until == total_epochs(search)
            ):
                jobs[key] = replace(job_of(member), until=current.until)
                inherit_state(jobs[key], search, member, runs, store)
        if not jobs or (current.until, list(jobs)) == last_round:
            return
        last_round = current.until, list(jobs)
        run_tuner(
            tune.with_parameters(run_trial, jobs=jobs),
            template,
            monitor,
            stop,
            {"key": tune.grid_search(list(jobs))},
            max_concurrent_trials=at_once,
            reuse_actors=True,
        )


def total_epochs(search: SearchPlan) -> int:
    """Return the number of epochs of a whole training."""
    return search.base.spec.train.epochs


def close_left_runs(
    current: SearchPlan,
    members: dict[str, Suggestion],
    runs: dict[str, Run],
    store: Store,
    monitor: TrialMonitor,
) -> None:
    """Close the runs that members left when they took over another's weights."""
    for suggestion in current.suggestions:
        if suggestion.key not in members and suggestion.key in runs:
            monitor.outcome.unfinished.pop(suggestion.key, None)
            run = runs[suggestion.key]
            if run.info.status in ("RUNNING", "KILLED") and STOPPED_TAG not in run.data.tags:
                stop_run(store, run.info.run_id, suggestion.epochs)


def inherit_state(
    job: Job, search: SearchPlan, member: Suggestion, runs: dict[str, Run], store: Store
) -> None:
    """Copy the state and history of the run from which a replaced member continues.

    If that run's state is gone or has more epochs, the member is trained from the start instead.
    The result is the same, because its values change at the same epochs.
    """
    if not member.earlier or member.epochs >= member.since:
        return
    donor = search.lineage(member.index, member.earlier)
    copy_state(job.lab, donor.key, job.key, member.since)
    run = runs[donor.key]
    names = [name for name in run.data.metrics if not name.startswith("system/")]
    history = metric_history(store, run.info.run_id, names)
    with job.record() as record:
        for epoch in range(1, member.since + 1):
            metrics = {name: values[epoch] for name, values in history.items() if epoch in values}
            record.metrics(epoch, metrics)


def copy_state(lab: Lab, donor: str, key: str, epochs: int) -> None:
    """Copy a training state of at most `epochs` epochs to another run if that has none."""
    source, target = lab.checkpoints(donor), lab.checkpoints(key)
    payload = None if (target / STATE).exists() else newest_state(source / STATE, lambda text: None)
    if payload is None:
        return
    state = parse_state(payload, torch.device("cpu"), source / STATE)
    if epochs_begun(state) > epochs:
        return
    target.mkdir(parents=True, exist_ok=True)
    if (source / BEST).exists():
        write_atomic(target / BEST, partial(shutil.copyfile, source / BEST))
    save_state(target / STATE, state)
