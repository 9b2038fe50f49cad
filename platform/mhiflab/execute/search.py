"""Tune driver of searches: train suggestions, or a population, with the test scenes closed.

Every suggestion is recorded before it is trained, and the record alone decides which members of a
population are replaced. So a new driver continues where an earlier one stopped, without Tune's
own state.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
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
from mhiflab.execute.job import Job
from mhiflab.execute.sweep import Outcome, Sweep, execute, run_tuner
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
    stop_run,
    trial_runs,
    write_tag,
)
from mhiflab.record.writer import replay
from mhiflab.study.search import Search
from mhiflab.study.spec import Spec


def execute_searches(
    plan: Plan, entries: Sequence[Entry], forecast: Forecast, lab: Lab, console: Console
) -> Outcome:
    """Train the suggestions of a plan's incomplete searches, and return their outcome.

    `entries` stand for the searches in the plan. Raises `UserError` as `execute` does.
    """

    def drive(sweep: Sweep) -> None:
        placeholders = dict(sweep.jobs)
        # From here on, the sweep holds the jobs of suggestions.
        sweep.jobs.clear()
        for search in plan.searches:
            if search.complete or sweep.stop.stop_all():
                continue
            placed, at_once = sweep.placed(placeholders[f"{search.id}.0"])
            template = replace(placed, test=False)
            stops_trials = search.search.scheduler.name in ("asha", "median")
            run_tuner(
                sweep,
                tune.with_parameters(run_suggestion, template=template),
                template,
                search_alg=Suggester(search, template, sweep),
                scheduler=scheduler_of(search.search, search.base.spec.train.epochs),
                num_samples=-1,
                max_concurrent_trials=at_once,
                # A process whose trial was stopped halfway may not have ended its training.
                reuse_actors=not stops_trials,
            )

    nested = any(one.base.resources.workers for one in plan.searches)
    return execute(plan, entries, forecast, lab, console, drive, dashboard=nested)


def run_suggestion(config: dict[str, Any], template: Job) -> None:
    """Execute a suggestion as a Tune function; `config` holds what differs from the template."""
    spec = TypeAdapter(Spec).validate_json(config["spec"])
    fields = {name: config[name] for name in ("key", "label", "until")}
    run_trial(config, {config["key"]: replace(template, spec=spec, **fields)})


class Suggester(Searcher):
    """A Tune searcher of what a search lacks: unfinished suggestions first, then new ones.

    The members of a population are trained to their next comparison, again and again.
    """

    def __init__(self, search: SearchPlan, template: Job, sweep: Sweep) -> None:
        super().__init__()
        self.search, self.template, self.sweep = search, template, sweep
        self.store, self.lab = sweep.store, template.lab
        self.running: dict[str, Suggestion] = {}
        """Suggestions by id of the Tune trial that trains them."""
        self.last_round: tuple[int | None, list[str]] | None = None
        self.suggestions: dict[int, Suggestion] = {}
        self.waiting: list[Suggestion] = []
        if not search.search.population:
            self._read_record()
            self.waiting = [one for one in self.suggestions.values() if not one.finished]

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its searchers, but this one reads its state from the record.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: the state is on record."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the state came from the record."""

    def suggest(self, trial_id: str) -> Any:
        """Return the next suggestion to train, None to be asked again, or `FINISHED`."""
        while self.waiting or self._find_more():
            one = self.waiting.pop(0)
            self.suggestions[one.index] = one
            job = self._register(one)
            if self.search.search.population:
                inherit_state(job, self.search, one, self.store)
            else:
                self._record_suggestion(one, job)
                running_keys = {other.key for other in self.running.values()}
                if self.suggestions[one.index].finished or one.key in running_keys:
                    continue
            self.running[trial_id] = one
            spec = json.dumps(asdict(job.spec))
            return {"key": job.key, "label": job.label, "until": job.until, "spec": spec}
        return None if self.running else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Record the epoch at which a trial was stopped, and read its result."""
        one = self.running.pop(trial_id)
        # A stopped worker could not upload the end of its journal.
        replay(self.lab, self.store.uri)
        # The last report of a trial that ends by itself has a state.
        if result and not error and "state" not in result:
            run = trial_runs(self.store, one.key)[one.key]
            stop_run(self.store, run.info.run_id, result["epoch"])
        self._refresh(one.key)

    def _read_record(self) -> dict[str, Run]:
        """Read the search again: searches may share runs; return all runs by key."""
        runs = trial_runs(self.store)
        self.search = refresh_search(self.search, runs, self.store, self.lab)
        self.suggestions = {one.index: one for one in self.search.members}
        return runs

    def _refresh(self, key: str) -> None:
        runs = trial_runs(self.store, key)
        for index, one in self.suggestions.items():
            if one.key == key:
                self.suggestions[index] = outcome(self.search, one, runs, self.store, self.lab)

    def _find_more(self) -> bool:
        """Put further suggestions among those that wait; return False if there are none now."""
        if self.search.search.population:
            self.waiting = [] if self.running else self._next_round()
        elif len(self.suggestions) < self.search.search.trials:
            self.waiting = [self._new_suggestion()]
        return bool(self.waiting)

    def _new_suggestion(self) -> Suggestion:
        search = self.search
        index = next(i for i in range(search.search.trials) if i not in self.suggestions)
        results = [
            PastSuggestion(one.values, one.objectives, one.state == "failed")
            for _, one in sorted(self.suggestions.items())
        ]
        values = suggest(search.search, index, results) if index else search.values_of_base()
        return search.suggestion(index, (0, values))

    def _next_round(self) -> list[Suggestion]:
        """Return the members to train to the next comparison.

        None are left at the end, or if all of them were lost in the round before.
        """
        runs = self._read_record()
        close_left_runs(self.search, runs, self.sweep)
        until, epochs = self.search.until or 0, self.search.base.spec.train.epochs
        members = [
            one
            for one in self.search.members
            if not one.finished and (one.epochs < until or until == epochs)
        ]
        this_round = until, [one.key for one in members]
        if this_round == self.last_round:
            return []
        self.last_round = this_round
        return members

    def _register(self, one: Suggestion) -> Job:
        """Add the job of a suggestion to the sweep, and return it."""
        label = f"#{one.index} ({one.text})"
        job = self.sweep.jobs[one.key] = replace(
            self.template,
            spec=one.trial.spec,
            key=one.key,
            case=f"{self.search.base.case}/search",
            label=label,
            until=self.search.until,
            note=trial_note(self.sweep.plan.study, label, one.trial.spec, self.search.where),
        )
        self.sweep.monitor.lanes[one.key] = f"{self.search.id}.{one.index}"
        return job

    def _record_suggestion(self, one: Suggestion, job: Job) -> None:
        """Record a suggestion, in a new run if it has none, and read its result."""
        runs = trial_runs(self.store, one.key)
        if one.key not in runs:
            # Its worker will find this run by key and fill it.
            job.record().close()
            runs = trial_runs(self.store, one.key)
        tag = f"{SEARCH_TAG}.{self.search.id}.{one.index}"
        write_tag(self.store, runs[one.key].info.run_id, tag, json.dumps(one.values))
        self._refresh(one.key)


class Median(MedianStoppingRule):
    """Median stopping that ignores last reports without a metric, which only hold an end state."""

    def __init__(self, metric: str, **options: Any) -> None:
        super().__init__(metric=metric, **options)
        self.metric_name = metric

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict) -> None:
        """Pass on a last report that has the metric."""
        if self.metric_name in result:
            super().on_trial_complete(tune_controller, trial, result)


def scheduler_of(search: Search, epochs: int) -> TrialScheduler:
    """Return Tune's scheduler; it never stops a trial at its last epoch, which saves nothing."""
    (metric, mode), rule = next(iter(search.objectives.items())), search.scheduler
    common: dict[str, Any] = {"time_attr": "epoch", "metric": metric, "mode": mode}
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


def close_left_runs(search: SearchPlan, runs: Mapping[str, Run], sweep: Sweep) -> None:
    """Close the runs that members left when they took over another's weights."""
    members = {one.key for one in search.members}
    for one in search.suggestions:
        if one.key not in members and one.key in runs:
            sweep.monitor.outcome.unfinished.pop(one.key, None)
            run = runs[one.key]
            if run.info.status in ("RUNNING", "KILLED") and STOPPED_TAG not in run.data.tags:
                stop_run(sweep.store, run.info.run_id, one.epochs)


def inherit_state(job: Job, search: SearchPlan, member: Suggestion, store: Store) -> None:
    """Copy the state and history of the run from which a replaced member continues.

    If that run's state is gone or has more epochs, the member is trained from the start instead.
    The result is the same, because its values change at the same epochs.
    """
    if not member.since or member.epochs >= member.since:
        return
    donor = search.suggestion(member.index, *member.steps[:-1]).key
    copy_state(job.lab, donor, job.key, member.since)
    run = trial_runs(store, donor)[donor]
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
