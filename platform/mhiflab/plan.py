"""Wanted trials against recorded runs: what is done, and what a run would execute."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mlflow.entities import Run
from rich.markup import escape
from rich.table import Table

from feinfn.config import DataConfig
from feinfn.data.source import Survey, Surveyed, check_fit, survey
from feinfn.errors import UserError
from feinfn.strips import strips_within
from feinfn.train import STATE
from mhiflab.identity import run_key
from mhiflab.paths import Lab
from mhiflab.search_record import SearchPlan, check_search, look
from mhiflab.spec import Study, Trial, expand, read_study
from mhiflab.tracking import TESTED_TAG, Store, trial_runs


@dataclass(frozen=True)
class Entry:
    """One wanted trial, its identity, and its state in the record."""

    trial: Trial
    survey: Survey
    key: str
    state: str
    """done, resume (a training state exists), failed (will be tried again) or new."""
    run: Run | None


@dataclass(frozen=True)
class Plan:
    """A study and all its trials, in the order of the file."""

    name: str
    path: Path
    study: Study
    entries: tuple[Entry, ...]
    searches: tuple[SearchPlan, ...] = ()
    """One for every case and point of the axes, where the study searches."""

    @property
    def missing(self) -> list[Entry]:
        """Trials without a finished run; one that stands in several cases counts once."""
        wanted: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.state != "done":
                wanted.setdefault(entry.key, entry)
        return list(wanted.values())


def read_plan(path: Path) -> Plan:
    """Read a study and identify its trials, without looking at any record; raise `UserError`."""
    study = read_study(path)
    surveys: dict[DataConfig, Survey] = {}
    entries = []
    searches: dict[str, SearchPlan] = {}
    trials = expand(study, str(path))
    for trial in trials:
        data = trial.spec.data
        if data not in surveys:
            surveys[data] = survey(data)
        check_trial(trial, surveys[data])
        if study.search is not None:
            if trial.case not in searches:
                prefix = f"{trial.label}: " if trials[-1].case != trials[0].case else ""
                one = SearchPlan(study.search, trial, surveys[data], str(path), prefix)
                check_search(one, check_trial)
                searches[trial.case] = one
            trial = searches[trial.case].named(trial)
        fingerprint = surveys[data].fingerprint
        entries.append(Entry(trial, surveys[data], run_key(trial.spec, fingerprint), "new", None))
    return Plan(path.stem, path, study, tuple(entries), tuple(searches.values()))


def check_trial(trial: Trial, data: Survey) -> None:
    """Raise `UserError` for what would stop the trial later: scenes or batch that do not fit."""
    spec = trial.spec
    for scene in data.scenes:
        check_fit(scene.source, scene.shape_SHW, spec.protocol, spec.model)
        if spec.protocol.srf != "measured" and spec.data.inputs != "stored":
            _check_response(trial, scene)
        if scene.part != "train":
            _check_evaluated(trial, scene)
    if spec.data.inputs == "stored":
        _check_stored(trial, data)
    batch, workers = spec.train.batch_size, max(trial.resources.workers, 1)
    if batch % workers:
        raise UserError(
            f"train.batch_size: found {batch}, expected a multiple of resources.workers = "
            f"{workers}: all workers share every batch"
        )


def _check_response(trial: Trial, scene: Surveyed) -> None:
    """Raise `UserError` for a scene whose bands the protocol's response does not fit."""
    nm = None if scene.wavelengths_nm is None else np.array(scene.wavelengths_nm)
    try:
        trial.spec.protocol.response(scene.shape_SHW[0], nm)
    except UserError as error:
        raise UserError(f"{scene.source}: {error}") from None


def _check_evaluated(trial: Trial, scene: Surveyed) -> None:
    """Raise `UserError` for a scene that is too small to score, or too large for the memory."""
    spec, size = trial.spec, scene.fused_size()
    ratio = spec.protocol.ratio
    least = max(11, 2 * ratio) if scene.msi_size else 11
    if min(size) < least:
        raise UserError(
            f"data.{scene.part}: found {scene.name} of {size[0]}x{size[1]} pixels, expected at "
            f"least {least}x{least}, which the metrics need; take a larger scene or window"
        )
    if trial.resources.memory_mib is not None:
        lr_size = size[0] // ratio, size[1] // ratio
        strips_within(trial.resources.memory_mib, spec.model, lr_size, size, 1)


def _check_stored(trial: Trial, data: Survey) -> None:
    """Raise `UserError` for what prepared files cannot do."""
    train, protocol = trial.spec.train, trial.spec.protocol
    given = {
        "train.augment": train.augment,
        "train.sampling: random": train.sampling == "random",
        "protocol.hsi_snr_db or msi_snr_db": protocol.noisy,
        "protocol.lr_bits or msi_bits": bool(protocol.lr_bits or protocol.msi_bits),
    }
    for field, found in given.items():
        if found:
            raise UserError(
                f"{field}: found with data.inputs: stored, whose inputs are taken as they are, "
                "expected without; leave it out, or use data.inputs: patch"
            )
    shapes = {scene.shape_SHW[1:]: scene for scene in data.scenes if scene.part == "train"}
    if len(shapes) > 1:
        (size, one), (other_size, other), *_ = shapes.items()
        raise UserError(
            f"data.train: found images of {size[0]}x{size[1]} in {one.source} and of "
            f"{other_size[0]}x{other_size[1]} in {other.source}, expected one size, because they "
            "share batches; export them again with one --patch"
        )


def reconcile(plan: Plan, store: Store | None, lab: Lab) -> Plan:
    """Return the plan with each trial's state in the store (all new where there is none).

    A search that is complete adds its best suggestions.
    """
    runs = trial_runs(store) if store else {}
    searches = tuple(look(one, runs, store, lab) for one in plan.searches)
    wanted = list(plan.entries)
    for one in searches:
        for trial in one.trials(plan.study.seeds) if one.complete else ():
            key = run_key(trial.spec, one.survey.fingerprint)
            wanted.append(Entry(trial, one.survey, key, "new", None))
    entries = []
    for entry in wanted:
        run = runs.get(entry.key)
        state = "new"
        tested = run is not None and run.data.tags.get(TESTED_TAG) != "false"
        if run is not None and run.info.status == "FINISHED" and tested:
            state = "done"
        elif run is not None and run.info.status == "FAILED":
            state = "failed"
        elif (lab.checkpoints(entry.key) / STATE).is_file():
            state = "resume"
        entries.append(replace(entry, state=state, run=run))
    return replace(plan, entries=tuple(entries), searches=searches)


def plan_table(plan: Plan) -> Table:
    """Return the plan as a console table: one row a trial."""
    table = Table(title=escape(f"{plan.name}: {plan.study.title}"), title_justify="left")
    for column in ("case", "seed", "workers", "epochs", "run key", "state"):
        table.add_column(column)
    colours = {"done": "green", "failed": "red", "resume": "yellow", "new": "cyan"}
    for entry in plan.entries:
        spec, colour = entry.trial.spec, colours[entry.state]
        workers = entry.trial.resources.workers
        table.add_row(
            escape(entry.trial.label),
            str(spec.seed),
            str(workers) if workers else "in process",
            str(spec.train.epochs),
            entry.key[:12],
            f"[{colour}]{entry.state}[/]",
        )
    return table
