"""The Tune driver of a population: trains all members to the next comparison, again and again.

Who is replaced follows from the record alone, so a new driver goes on where another one ended.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from mlflow.entities import Run
from ray import tune

from feinfn.files import BEST, STATE, write_atomic
from feinfn.training.checkpoint import epochs_begun, newest_state, parse_state, save_state
from mhiflab.job import Job
from mhiflab.paths import Lab
from mhiflab.plan.search import SearchPlan, Suggestion, look
from mhiflab.record.store import (
    STOPPED_TAG,
    Store,
    metric_history,
    open_store,
    stop_run,
    trial_runs,
)
from mhiflab.record.writer import replay
from mhiflab.sweep import Follow, StopRules, run_tuner
from mhiflab.trial import run_trial


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
        now = look(search, runs, store, lab)
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
