"""Wanted trials against recorded runs: what is done, and what a run would execute."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from mlflow.entities import Run
from rich.markup import escape
from rich.table import Table

from feinfn.config import DataConfig, ModelConfig
from feinfn.data.source import Survey, Surveyed, check_fit
from feinfn.errors import UserError
from feinfn.files import STATE
from feinfn.methods.feinfn.strips import strips_within
from feinfn.methods.registry import name_of
from mhiflab.lock import driver_at_work
from mhiflab.paths import Lab, study_name
from mhiflab.search_record import SearchPlan, check_search, look
from mhiflab.study.expand import Trial, expand
from mhiflab.study.identity import run_key, spec_hash
from mhiflab.study.read import read_study
from mhiflab.study.schema import Study
from mhiflab.study.spec import ON_DISK, DataAccess
from mhiflab.tracking import (
    CASE,
    ERROR_TAG,
    FINGERPRINT,
    SEED,
    SPEC_HASH,
    STUDY,
    TESTED_TAG,
    Store,
    trial_runs,
)

STATES = {
    "done": "green",
    "running": "blue",
    "resume": "yellow",
    "new": "cyan",
    "failed": "red",
    "blocked": "magenta",
}
"""done; running (a driver is at work on it); resume (a training state exists); new; failed (until
`mhiflab retry`); blocked (cannot run as it stands). Each with its colour on the console."""


@dataclass(frozen=True)
class Entry:
    """One wanted trial, its identity, and its state in the record."""

    trial: Trial
    survey: Survey | None
    """None where the data cannot be read; the trial is blocked and has no key then."""
    key: str
    state: str
    """One of `STATES`."""
    why: str = ""
    """Why it is blocked, or failed."""
    run: Run | None = None

    @property
    def who(self) -> str:
        """The trial as people call it."""
        return f"{self.trial.label}, seed {self.trial.spec.seed}"


def labels_of(entries: Iterable[Entry]) -> dict[str, str]:
    """Return every case's label in order; cases of one label are told apart by their names."""
    given = {entry.trial.case: entry.trial.label for entry in entries}
    times = Counter(given.values())
    labels: dict[str, str] = {}
    taken = set(times)
    for case, label in given.items():
        if times[label] > 1:
            while label in taken:
                label += f" ({case})"
            taken.add(label)
        labels[case] = label
    return labels


def upsampled_label(entries: Iterable[Entry]) -> str:
    """Return what the upsampled LR-HSI is called beside some runs' labels, of which none is it."""
    entries = list(entries)
    label = f"{entries[0].trial.spec.protocol.upsampling.capitalize()} upsampling"
    taken = set(labels_of(entries).values())
    while label in taken:
        label += " (input)"
    return label


@dataclass(frozen=True)
class Plan:
    """A study and all its trials, in the order of the file."""

    name: str
    path: Path
    study: Study
    entries: tuple[Entry, ...]
    smoke: bool = False
    searches: tuple[SearchPlan, ...] = ()
    """One for every case and point of the axes, where the study searches."""
    recorded: tuple[Run, ...] = ()
    """Every trial's run on record, of this study or another."""

    def unique(self, *states: str) -> list[Entry]:
        """Return the trials in some states; one that stands in several cases counts once."""
        wanted: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.state in states:
                wanted.setdefault(entry.key or entry.who, entry)
        return list(wanted.values())

    @property
    def missing(self) -> list[Entry]:
        """What a run would execute."""
        return self.unique("new", "resume")

    @property
    def unfinished(self) -> list[Entry]:
        """What a table still lacks."""
        return self.unique(*(state for state in STATES if state != "done"))

    @property
    def finished(self) -> "Plan":
        """The plan with nothing but its finished trials."""
        return replace(self, entries=tuple(e for e in self.entries if e.state == "done"))

    def refuse_missing(self) -> None:
        """Raise `UserError` where a run is missing."""
        if missing := self.unfinished:
            names = ", ".join(f"{e.trial.label} seed {e.trial.spec.seed}" for e in missing[:4])
            raise UserError(
                f"{self.path}: {len(missing)} of {len(self.entries)} runs are missing ({names}); "
                f"execute them first: mhiflab run {self.command}"
            )

    @property
    def unsearched(self) -> list[Entry]:
        """An entry in the place of every suggestion that the plan's searches still lack."""
        return [
            Entry(one.base, one.survey, f"{one.id}.{i}", "new")
            for one in self.searches
            for i in range(one.search.trials - len(one.finished))
        ]

    @property
    def command(self) -> str:
        """What follows `mhiflab run`, `retry` and so on for this study."""
        return f"{self.path}{' --smoke' if self.smoke else ''}"


def read_plan(path: Path, smoke: bool = False, data_access: DataAccess = ON_DISK) -> Plan:
    """Read a study (or its smoke variant) and identify its trials, without looking at any record.

    A trial that cannot run as it stands is blocked. Raises `UserError` for a study that cannot be
    read, and where every trial is blocked.
    """
    study = read_study(path, smoke)
    surveys: dict[DataConfig, Survey | UserError] = {}
    entries = []
    searches: dict[str, SearchPlan] = {}
    trials = expand(study, str(path), data_access.resolve)
    for trial in trials:
        data = trial.spec.data
        if data not in surveys:
            try:
                surveys[data] = data_access.survey(data)
            except UserError as error:
                surveys[data] = error
        entry = _entry(trial, surveys[data])
        if study.search is not None:
            if not trial.spec.trained:
                raise UserError(
                    f"{path}: search: found with {trial.label}, a classical method, expected with "
                    "a model that is trained"
                )
            if entry.survey is None or entry.state == "blocked":
                raise UserError(entry.why)
            if trial.case not in searches:
                prefix = f"{trial.label}: " if trials[-1].case != trials[0].case else ""
                one = SearchPlan(study.search, trial, entry.survey, str(path), prefix)
                check_search(one, check_trial)
                searches[trial.case] = one
            entry = replace(entry, trial=searches[trial.case].named(trial))
        entries.append(entry)
    first = next((e.why for e in entries if e.state == "blocked"), "")
    if all(entry.state == "blocked" for entry in entries):
        raise UserError(first)
    found = tuple(searches.values())
    return Plan(study_name(path, smoke), path, study, tuple(entries), smoke, found)


def _entry(trial: Trial, found: Survey | UserError) -> Entry:
    if isinstance(found, UserError):
        return Entry(trial, None, "", "blocked", str(found))
    key = run_key(trial.spec, found.fingerprint)
    try:
        check_trial(trial, found)
    except UserError as error:
        return Entry(trial, found, key, "blocked", str(error))
    return Entry(trial, found, key, "new")


def check_trial(trial: Trial, data: Survey) -> None:
    """Raise `UserError` for what would stop the trial later: scenes or batch that do not fit."""
    spec = trial.spec
    whole = trial.resources.memory_mib is None and not trial.resources.recompute
    if not whole and not isinstance(spec.model, ModelConfig):
        raise UserError(
            f"resources.memory_mib, resources.recompute: found for model.name "
            f"{name_of(spec.model)!r}, expected with feinfn alone, which can work in parts; leave "
            "them out"
        )
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
    if trial.resources.memory_mib is not None and isinstance(spec.model, ModelConfig):
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


def reconcile(plan: Plan, store: Store | None, lab: Lab, new_data: bool = False) -> Plan:
    """Return the plan with each trial's state in the store (all new where there is none).

    A trial that began on data that have changed since is blocked, unless `new_data`. A search that
    is complete adds its best suggestions.
    """
    runs = trial_runs(store) if store else {}
    at_work = driver_at_work(lab)
    searches = tuple(look(one, runs, store, lab) for one in plan.searches)
    wanted = list(plan.entries)
    for one in searches:
        for trial in one.trials(plan.study.seeds) if one.complete else ():
            key = run_key(trial.spec, one.survey.fingerprint)
            wanted.append(Entry(trial, one.survey, key, "new"))
    entries = []
    for entry in wanted:
        run = runs.get(entry.key)
        state, why = entry.state, entry.why
        tested = run is not None and run.data.tags.get(TESTED_TAG) != "false"
        if run is not None and run.info.status == "FINISHED" and tested:
            state, why = "done", ""
        elif state == "blocked":
            pass
        elif run is not None and run.info.status == "FAILED":
            state, why = "failed", run.data.tags.get(ERROR_TAG, "")
        elif at_work and run is not None and run.info.status == "RUNNING":
            state = "running"
        elif (lab.checkpoints(entry.key) / STATE).is_file():
            state = "resume"
        elif run is None and not new_data:
            why = _began_on_other_data(entry, runs.values(), plan.name)
            state = "blocked" if why else "new"
        entries.append(replace(entry, state=state, why=why, run=run))
    recorded = tuple(runs.values())
    return replace(plan, entries=tuple(entries), searches=searches, recorded=recorded)


def _began_on_other_data(entry: Entry, runs: Iterable[Run], study: str) -> str:
    """Return why a new trial is blocked: it began on data that were changed since then."""
    spec, survey = entry.trial.spec, entry.survey
    assert survey is not None, "an entry with a key has a survey"
    for run in runs:
        tags = run.data.tags
        place = tags.get(STUDY), tags.get(CASE), tags.get(SEED)
        if run.info.status == "FINISHED" or place != (study, entry.trial.case, str(spec.seed)):
            continue
        was = tags.get(FINGERPRINT, "")
        if tags.get(SPEC_HASH) == spec_hash(spec) and was != survey.fingerprint:
            return (
                f"the data changed since this trial began (fingerprint {was[:12]} then, "
                f"{survey.fingerprint[:12]} now): bring them back, or start it anew with "
                "`mhiflab run --new-data`"
            )
    return ""


def state_table(plan: Plan) -> Table:
    """Return the plan as a console table: a row for every case, a column for every seed."""
    table = Table(title=escape(f"{plan.name}: {plan.study.title}"), title_justify="left")
    table.add_column("case")
    for seed in plan.study.seeds:
        table.add_column(f"seed {seed}")
    for column in ("workers", "epochs"):
        table.add_column(column, justify="right")
    rows: dict[str, list[Entry]] = {}
    for entry in plan.entries:
        rows.setdefault(entry.trial.case, []).append(entry)
    for entries in rows.values():
        trial = entries[0].trial
        cells = [f"[{STATES[e.state]}]{e.state}[/]" for e in entries]
        # A case that is not trained has one trial for all seeds.
        cells += ["-"] * (len(plan.study.seeds) - len(cells))
        workers = str(trial.resources.workers or "in process")
        epochs = str(trial.spec.train.epochs) if trial.spec.trained else "-"
        table.add_row(escape(trial.label), *cells, workers, epochs)
    return table


def counts_line(plan: Plan) -> str:
    """Return how many trials are in which state, and how many a run would execute."""
    counts = Counter(entry.state for entry in plan.unique(*STATES))
    told = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return f"{len(plan.missing)} of {counts.total()} trials to execute ({told})"


def reasons(plan: Plan, at_most: int = 5) -> list[str]:
    """Return a line for every trial that is blocked or failed, equal reasons once."""
    found: dict[str, list[Entry]] = {}
    for entry in plan.unique("blocked", "failed"):
        found.setdefault(f"{entry.state}: {entry.why}", []).append(entry)
    lines = []
    for text, entries in list(found.items())[:at_most]:
        others = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
        lines.append(f"{entries[0].who}{others} {text}")
    if len(found) > at_most:
        lines.append(f"and {len(found) - at_most} further reasons")
    return lines
