"""Tune driver of searches: train suggestions, or a population, with the test scenes closed.

Every suggestion is recorded before it is trained, and the record alone decides which members of a
population are replaced. So a new driver continues where an earlier one stopped, without Tune's
own state.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search import Searcher

from feinfn.files import BEST, STATE, write_atomic
from feinfn.training.checkpoint import epochs_begun, newest_state, parse_state, save_state
from mhiflab.execute.job import Job
from mhiflab.execute.sweep import Outcome, Sweep, execute, run_tuner
from mhiflab.execute.trial import run_trial
from mhiflab.paths import Lab
from mhiflab.plan.forecast import Forecast
from mhiflab.plan.plan import Entry, Plan
from mhiflab.plan.search import SearchPlan, refresh_search
from mhiflab.plan.suggest import Suggestion, suggest
from mhiflab.record import tag
from mhiflab.record.finished import RecordedRun
from mhiflab.record.store import Store, stop_run, trial_runs, write_tag
from mhiflab.record.studies import trial_note
from mhiflab.record.writer import upload_waiting_folders
from mhiflab.study.search import Search


def execute_searches(plan: Plan, entries: Sequence[Entry], forecast: Forecast, lab: Lab) -> Outcome:
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
    return execute(plan, entries, forecast, lab, drive, dashboard=nested)


def run_suggestion(config: dict[str, Any], template: Job) -> None:
    """Execute a suggestion as a Tune function; `config` holds what differs from the template."""
    fields = {name: config[name] for name in ("key", "label", "until", "spec")}
    run_trial(config, {config["key"]: replace(template, **fields)})


class Suggester(Searcher):
    """A Tune searcher of what a search lacks, which the record alone decides.

    Unfinished suggestions come first, then new ones. The members of a population are trained to
    their next comparison, again and again.
    """

    def __init__(self, search: SearchPlan, template: Job, sweep: Sweep) -> None:
        super().__init__()
        self.search, self.template, self.sweep = search, template, sweep
        self.running: dict[str, Suggestion] = {}
        """Suggestions by id of the Tune trial that trains them."""
        self.tried: set[tuple[int, int]] = set()
        """Suggestions that were begun here, by index, and the epoch to which they should train."""
        self._read_record()

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
        while (one := self._next()) is not None:
            self.tried.add((one.index, self.search.until))
            job = self._register(one)
            if self.search.search.population:
                inherit_state(job, self.search, one, self.sweep.store)
            else:
                runs = trial_runs(self.sweep.store, one.key)
                if one.key not in runs:
                    # Its worker will find this run by key and fill it.
                    job.record().close()
                    runs = trial_runs(self.sweep.store, one.key)
                self._write_tag(one, runs[one.key].info.run_id)
                self._read_record()
                keys = {other.key for other in self.running.values()}
                keys |= {other.key for other in self.search.finished}
                if one.key in keys:
                    continue
            self.running[trial_id] = one
            return {"key": job.key, "label": job.label, "until": job.until, "spec": job.spec}
        return None if self.running else Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict | None = None, error: bool = False
    ) -> None:
        """Record the epoch at which a trial was stopped, and read its result."""
        one, store = self.running.pop(trial_id), self.sweep.store
        # A stopped worker could not upload the end of its journal.
        upload_waiting_folders(self.template.lab, store.uri)
        # The last report of a trial that ends by itself has a state.
        if result and not error and "state" not in result:
            run = trial_runs(store, one.key)[one.key]
            stop_run(store, run.info.run_id, result["epoch"])
        self._read_record()

    def _read_record(self) -> None:
        store = self.sweep.store
        runs = {key: RecordedRun(store, run) for key, run in trial_runs(store).items()}
        self.search = refresh_search(self.search, runs, self.template.lab)
        members = {one.key for one in self.search.members}
        # Close the runs that members left when they took over another's weights.
        for one in self.search.suggestions:
            run = runs.get(one.key)
            if one.key in members or run is None:
                continue
            self.sweep.monitor.outcome.unfinished.pop(one.key, None)
            if run.mlflow.info.status in ("RUNNING", "KILLED") and tag.STOPPED not in run.tags:
                stop_run(store, run.id, one.epochs)
        if not self.search.search.population:
            # The run of a suggestion may be another's, or another study's.
            for one in self.search.finished:
                if self._tag(one) not in runs[one.key].tags:
                    self._write_tag(one, runs[one.key].id)

    def _tag(self, one: Suggestion) -> str:
        return f"{self.search.tag_prefix}{one.index}"

    def _write_tag(self, one: Suggestion, run_id: str) -> None:
        write_tag(self.sweep.store, run_id, self._tag(one), json.dumps(one.values))

    def _next(self) -> Suggestion | None:
        """Return the next suggestion to train, None if there is none now."""
        search, members = self.search, self.search.members
        for one in members:
            below = one.epochs < search.until or search.until == search.base.spec.train.epochs
            if below and not one.finished and (one.index, search.until) not in self.tried:
                return one
        index = next((i for i, one in enumerate(members) if i != one.index), len(members))
        if index == search.search.trials:
            return None
        values = suggest(search.search, index, members) if index else search.values_of_base()
        return search.suggestion(index, (0, values))

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


def inherit_state(job: Job, search: SearchPlan, member: Suggestion, store: Store) -> None:
    """Copy the state and history of the run from which a replaced member continues.

    If that run's state is gone or has more epochs, the member is trained from the start instead.
    The result is the same, because its values change at the same epochs.
    """
    if not member.since or member.epochs >= member.since:
        return
    donor = search.suggestion(member.index, *member.steps[:-1]).key
    source, target = job.lab.checkpoints(donor), job.lab.checkpoints(job.key)
    payload = None if (target / STATE).exists() else newest_state(source / STATE, lambda text: None)
    if payload is not None:
        state = parse_state(payload, torch.device("cpu"), source / STATE)
        if epochs_begun(state) <= member.since:
            target.mkdir(parents=True, exist_ok=True)
            if (source / BEST).exists():
                write_atomic(target / BEST, partial(shutil.copyfile, source / BEST))
            save_state(target / STATE, state)
    run = RecordedRun(store, trial_runs(store, donor)[donor])
    history = {n: run.history(n) for n in run.metrics if not n.startswith("system/")}
    with job.record() as record:
        for epoch in range(1, member.since + 1):
            metrics = {name: values[epoch] for name, values in history.items() if epoch in values}
            record.metrics(epoch, metrics)
