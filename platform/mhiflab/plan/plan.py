"""Wanted trials against recorded runs: what is done, and what a run would execute."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow.entities import Run

from feinfn.config import DataConfig
from feinfn.data.source import Survey
from feinfn.errors import UserError
from feinfn.files import STATE
from mhiflab.environment import rare_collections
from mhiflab.paths import Lab, study_name, study_path
from mhiflab.plan.checks import check_trial
from mhiflab.plan.search import SearchPlan, check_search, look
from mhiflab.record.archive import data_of, runs_of
from mhiflab.record.lab_lock import driver_at_work
from mhiflab.record.store import (
    CASE,
    ERROR_TAG,
    FINGERPRINT,
    SEED,
    SPEC_HASH,
    STUDY,
    TESTED_TAG,
    Store,
    existing_store,
    trial_runs,
)
from mhiflab.study.expand import Trial, expand
from mhiflab.study.identity import run_key, spec_hash
from mhiflab.study.read import read_study
from mhiflab.study.schema import Study
from mhiflab.study.spec import ON_DISK, DataAccess

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


def plan_refresher(study: str, smoke: bool, lab: Lab, new_data: bool = False) -> Callable[[], Plan]:
    """Return a function that compares a study's plan with the record as it stands then.

    Study and scenes are read once, however often it is called.
    """
    with rare_collections():
        wanted = read_plan(study_path(study), smoke)

    def now() -> Plan:
        with rare_collections():
            return reconcile(wanted, existing_store(lab), lab, new_data)

    return now


def current_plan(study: str, smoke: bool, lab: Lab) -> Plan:
    """Return a study's plan against the record."""
    return plan_refresher(study, smoke, lab)()


@contextmanager
def plan_with_store(
    path: Path, smoke: bool, lab: Lab, record: Path | None
) -> Iterator[tuple[Plan, Store]]:
    """Yield a study's plan against the lab's record or an archive, and the store of its runs."""
    with rare_collections():
        wanted = read_plan(path, smoke, data_of(record))
    with runs_of(record, lab) as store:
        with rare_collections():
            found = reconcile(wanted, store, lab)
        yield found, store
