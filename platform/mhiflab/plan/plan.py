"""Plan of a study: compare its trials with recorded runs, and list those left to execute."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from mlflow.entities import Run

from feinfn.config import DataConfig
from feinfn.data.source import Survey
from feinfn.errors import UserError
from feinfn.files import STATE
from mhiflab.exclusion import driver_lock
from mhiflab.paths import Lab, study_name
from mhiflab.plan.checks import check_search, check_trial
from mhiflab.plan.lost import LostRuns
from mhiflab.plan.search import SearchPlan, refresh_search
from mhiflab.plan.suggest import text_of
from mhiflab.record import tag
from mhiflab.record.finished import RecordedRun
from mhiflab.record.store import Store, by_key, existing_store, find_runs
from mhiflab.study.expand import Trial, expand
from mhiflab.study.identity import run_key, spec_hash
from mhiflab.study.read import read_study
from mhiflab.study.schema import Study
from mhiflab.study.spec import ON_DISK, DataAccess

STATES = ("done", "running", "resume", "new", "failed", "blocked")
"""States of a trial: done; running (a driver works on it); resume (a training state exists); new;
failed (until `mhiflab retry`); blocked (cannot run as it is)."""


@dataclass(frozen=True)
class Entry:
    """One trial of a study, its identity, and its state in the record."""

    trial: Trial
    survey: Survey | None
    """None if the data cannot be read; the trial is then blocked."""
    key: str
    """Run key; empty if the data cannot be read."""
    state: str
    """One of `STATES`."""
    why: str = ""
    """Reason why the trial is blocked, or failed, or new although a run of it is finished."""
    run: RecordedRun | None = None
    """Its run on record."""

    @property
    def who(self) -> str:
        """Label and seed, for people."""
        return f"{self.trial.label}, seed {self.trial.spec.seed}"

    def is_of(self, seeds: Iterable[int]) -> bool:
        """Return True if it has one of the seeds; a method without training belongs to all."""
        return self.trial.spec.seed in seeds or not self.trial.spec.trained


@dataclass(frozen=True)
class Finished(Entry):
    """A trial with a finished run."""

    survey: Survey = field(kw_only=True)
    run: RecordedRun = field(kw_only=True)


@dataclass(frozen=True)
class Plan:
    """Study and all its trials, in the order of the file."""

    name: str
    path: Path
    study: Study
    entries: tuple[Entry, ...]
    smoke: bool = False
    searches: tuple[SearchPlan, ...] = ()
    """One for every case and point of the axes, if the study has a search."""
    recorded: tuple[Run, ...] = ()
    """All runs of trials on record, of this and of other studies."""

    def unique(self, *states: str) -> list[Entry]:
        """Return the trials in some states; a trial that several cases share counts once."""
        entries: dict[str, Entry] = {}
        for entry in self.entries:
            if entry.state in states:
                entries.setdefault(entry.key or entry.who, entry)
        return list(entries.values())

    @property
    def missing(self) -> list[Entry]:
        """Trials that `mhiflab run` would execute."""
        return self.unique("new", "resume")

    @property
    def unfinished(self) -> list[Entry]:
        """Trials that a table still lacks."""
        return self.unique(*(state for state in STATES if state != "done"))

    @property
    def finished(self) -> tuple[Finished, ...]:
        """Finished trials."""
        return tuple(entry for entry in self.entries if isinstance(entry, Finished))

    def complete(self, entries: Sequence[Entry] | None = None) -> list[Finished]:
        """Return entries, by default all; raise `UserError` if one has no finished run."""
        entries = self.entries if entries is None else entries
        missing = {e.key or e.who: e.who for e in entries if not isinstance(e, Finished)}
        if missing:
            blocked = next((entry.why for entry in entries if entry.state == "blocked"), "")
            raise UserError(
                f"{self.path}: {len(missing)} of {len(entries)} runs are missing "
                f"({'; '.join([*missing.values()][:4])}); "
                + (blocked or f"execute them first: mhiflab run {self.command}")
            )
        return [entry for entry in entries if isinstance(entry, Finished)]

    @cached_property
    def labels(self) -> dict[str, str]:
        """Label of every case in order; cases with the same label get their name appended."""
        labels = {entry.trial.case: entry.trial.label for entry in self.entries}
        counts = Counter(labels.values())
        taken = set(counts)
        for case, label in labels.items():
            if counts[label] > 1:
                while label in taken:
                    label += f" ({case})"
                taken.add(label)
            labels[case] = label
        return labels

    @property
    def upsampled_label(self) -> str:
        """Label for the upsampled LR-HSI that differs from the labels of all cases."""
        label = f"{self.entries[0].trial.spec.protocol.upsampling.capitalize()} upsampling"
        while label in self.labels.values():
            label += " (input)"
        return label

    @property
    def unsearched(self) -> list[Entry]:
        """Placeholders, one for every suggestion that the plan's searches still lack."""
        return [
            Entry(one.base, one.survey, f"{one.id}.{i}", "new")
            for one in self.searches
            for i in range(one.search.trials - len(one.finished))
        ]

    @property
    def command(self) -> str:
        """Arguments that name this study after `mhiflab run`, `mhiflab retry` and so on."""
        return f"{self.path}{' --smoke' if self.smoke else ''}"


def plan_refresher(
    path: Path, smoke: bool, lab: Lab, new_data: bool = False, repeat_lost: bool = False
) -> Callable[[], Plan]:
    """Return a function that reads a study's record; study and scenes are read only once."""
    plan = read_plan(path, smoke)
    return lambda: reconcile(plan, existing_store(lab), lab, new_data, repeat_lost)


def read_plan(path: Path, smoke: bool = False, data_access: DataAccess = ON_DISK) -> Plan:
    """Return the plan of a study (or its smoke variant), before any record is read.

    A trial that cannot run as it is gets the state `blocked`. Raise `UserError` if the study is
    invalid, or if every trial is blocked.
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
                    f"{path}: search: found {trial.label}, a classical method, expected a model "
                    "that is trained; take it out of the study"
                )
            if entry.survey is None or entry.state == "blocked":
                raise UserError(entry.why)
            if trial.case not in searches:
                prefix = f"{trial.label}: " if trials[-1].case != trials[0].case else ""
                search = SearchPlan(study.search, trial, entry.survey, str(path), prefix)
                check_search(search)
                searches[trial.case] = search
            search = searches[trial.case]
            label = f"{search.prefix}Default ({text_of(search.values_of_base())})"
            entry = replace(entry, trial=replace(trial, label=label))
        entries.append(entry)
    blocked = [entry.why for entry in entries if entry.state == "blocked"]
    if len(blocked) == len(entries):
        raise UserError(blocked[0])
    name = study_name(path, smoke)
    return Plan(name, path, study, tuple(entries), smoke, tuple(searches.values()))


def _entry(trial: Trial, survey: Survey | UserError) -> Entry:
    """Return a trial's entry before any record is read: new, or blocked."""
    if isinstance(survey, UserError):
        return Entry(trial, None, "", "blocked", str(survey))
    key = run_key(trial.spec, survey.fingerprint)
    try:
        check_trial(trial, survey)
    except UserError as error:
        return Entry(trial, survey, key, "blocked", str(error))
    return Entry(trial, survey, key, "new")


def reconcile(
    plan: Plan,
    store: Store | None,
    lab: Lab,
    new_data: bool = False,
    repeat_lost: bool = False,
) -> Plan:
    """Return the plan with each trial's state in the store; without a store, all are new.

    A trial is blocked if it began on data that have changed since, unless `new_data` is true, and
    if its finished run was deleted or lost, unless `repeat_lost` is true. A complete search adds
    its best suggestions.
    """
    every_run = find_runs(store, {}) if store else []
    runs = by_key(every_run)
    recorded = {key: RecordedRun(store, run) for key, run in runs.items()} if store else {}
    lost: LostRuns | None = None
    at_work = driver_lock(lab).holder() is not None
    searches = tuple(refresh_search(search, recorded, lab) for search in plan.searches)
    planned = list(plan.entries)
    for search in searches:
        for trial in search.trials(plan.study.seeds) if search.complete else ():
            key = run_key(trial.spec, search.survey.fingerprint)
            planned.append(Entry(trial, search.survey, key, "new"))
    entries: list[Entry] = []
    for entry in planned:
        run = recorded.get(entry.key)
        if run and run.complete and entry.survey:
            entries.append(Finished(entry.trial, entry.key, "done", survey=entry.survey, run=run))
            continue
        state, why = entry.state, entry.why
        status = run.mlflow.info.status if run else ""
        reason = ""
        if store and entry.survey and run is None and not repeat_lost:
            lost = lost or LostRuns(store, every_run)
            reason = lost.why(entry.key, entry.trial.spec, entry.survey.fingerprint)
        if state == "blocked":
            pass
        elif reason:
            state, why = "blocked", reason
        elif run and status == "FAILED":
            state, why = "failed", run.tags.get(tag.ERROR, "")
        elif at_work and status == "RUNNING":
            state = "running"
        elif (lab.checkpoints(entry.key) / STATE).is_file():
            state = "resume"
        elif run is None and not new_data:
            state, why = _on_other_data(entry, runs.values(), plan.name)
        entries.append(replace(entry, state=state, why=why, run=run))
    return replace(plan, entries=tuple(entries), searches=searches, recorded=tuple(runs.values()))


def _on_other_data(entry: Entry, runs: Iterable[Run], study: str) -> tuple[str, str]:
    """Return the state of a trial without a run, and why it has none if its data have changed.

    It is blocked if it began on other data, and new if it is finished on them.
    """
    spec, survey, finished = entry.trial.spec, entry.survey, ""
    assert survey is not None, "an entry with a key has a survey"
    for run in runs:
        tags = run.data.tags
        place = tags.get(tag.STUDY), tags.get(tag.CASE), tags.get(tag.SEED)
        earlier = tags.get(tag.FINGERPRINT, "")
        same = place == (study, entry.trial.case, str(spec.seed))
        if not same or tags.get(tag.SPEC_HASH) != spec_hash(spec) or earlier == survey.fingerprint:
            continue
        change = f"(fingerprint {earlier[:12]} then, {survey.fingerprint[:12]} now)"
        if run.info.status != "FINISHED":
            return "blocked", (
                f"the data changed since this trial began {change}: restore them, or start the "
                "trial again with `mhiflab run --new-data`"
            )
        notes = " ".join(dict.fromkeys(note for scene in survey.scenes for note in scene.notes))
        said = f". What is read from files now: {notes}" if notes else ""
        finished = (
            f"its finished run has other data {change}: scenes have changed, or "
            "an earlier version read them otherwise, which the record does not tell apart" + said
        )
    return "new", finished
