"""Search compared with the record: its suggestions, their results, and the best of them."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from mlflow.entities import Run

from feinfn.config import Change
from feinfn.data.source import Survey
from feinfn.errors import UserError
from feinfn.files import STATE
from feinfn.methods.cost import flop_per_pixel, parameters_of
from mhiflab.paths import Lab
from mhiflab.plan.suggest import comparison_epochs, pareto_front, successors, suggest
from mhiflab.record.store import ERROR_TAG, SEARCH_TAG, STOPPED_TAG, Store, metric_history
from mhiflab.study.expand import Trial
from mhiflab.study.identity import run_key
from mhiflab.study.search import COSTS, Search, Values
from mhiflab.study.spec import parse_trial

MOST_WINNERS = 5
"""Suggestions of a Pareto front that are tested, spread evenly over it."""

FINISHED = ("done", "stopped", "failed")
"""States of a suggestion whose result is known."""


@dataclass(frozen=True)
class Suggestion:
    """One suggestion, with its result on record."""

    index: int
    values: Values
    trial: Trial
    key: str
    state: str = "new"
    """Finished: done, stopped (by the scheduler), failed (diverged). Unfinished: resume, new."""
    epochs: int = 0
    """Epochs that it has trained."""
    objectives: tuple[float, ...] | None = None
    """Objectives at the epoch whose weights are kept, the one of the best validation PSNR."""
    earlier: tuple[tuple[int, Values], ...] = ()
    """Its values before `values`, each with the epoch after which they held."""
    since: int = 0
    """Epoch after which `values` hold."""

    @property
    def steps(self) -> tuple[tuple[int, Values], ...]:
        """All its values, each with the epoch after which they hold."""
        return (*self.earlier, (self.since, self.values))

    @property
    def text(self) -> str:
        """Text of its values for labels."""
        return "; ".join(
            f"after {epoch}: {text_of(values)}" if epoch else text_of(values)
            for epoch, values in self.steps
        )

    @property
    def finished(self) -> bool:
        """True if its result is known."""
        return self.state in FINISHED


@dataclass(frozen=True)
class SearchPlan:
    """Search around one base: a case at one point of the axes, with the study's first seed."""

    search: Search
    base: Trial
    survey: Survey
    where: str
    """Study file, at which errors begin."""
    prefix: str = ""
    """Start of this search's labels, if the study has several searches."""
    suggestions: tuple[Suggestion, ...] = ()
    """Suggestions known so far, by index; all of them in a random search. In a population, its
    present members, followed by the members that were replaced."""
    until: int | None = None
    """Epoch of a population's next comparison, or the last epoch of its training."""

    @cached_property
    def id(self) -> str:
        """Hash of the search, which the tags of its runs hold."""
        return self.search.identity(run_key(self.base.spec, self.survey.fingerprint))

    def values_of_base(self) -> Values:
        """Return the base's values of the searched keys: the search's first suggestion."""
        content = json.loads(json.dumps(asdict(self.base.spec)))
        return {key: content[key.split(".")[0]][key.split(".")[1]] for key in self.search.space}

    def lineage(self, index: int, steps: Sequence[tuple[int, Values]]) -> Suggestion:
        """Return a population's member that took on new values after some epochs.

        Each step holds an epoch and the values after it; the first epoch is 0.
        """
        first = self.suggestion(index, steps[0][1])
        changes = tuple(
            Change(after_epoch=epoch, **{key.removeprefix("train."): v for key, v in new.items()})
            for epoch, new in steps[1:]
        )
        spec = first.trial.spec
        spec = replace(spec, train=replace(spec.train, changes=changes))
        since, values = steps[-1]
        return replace(
            first,
            values=values,
            trial=replace(first.trial, spec=spec),
            key=run_key(spec, self.survey.fingerprint),
            earlier=tuple(steps[:-1]),
            since=since,
        )

    def suggestion(self, index: int, values: Values) -> Suggestion:
        """Return a suggestion with its spec and run key."""
        trial = with_values(self.base, values, self.where)
        return Suggestion(index, values, trial, run_key(trial.spec, self.survey.fingerprint))

    @property
    def finished(self) -> list[Suggestion]:
        """Suggestions whose result is known."""
        return [one for one in self.suggestions if one.finished and one.index < self.search.trials]

    @property
    def complete(self) -> bool:
        """True if every suggestion's result is known."""
        return len(self.finished) == self.search.trials

    @property
    def best(self) -> list[Suggestion]:
        """Best suggestions of those trained to the end: one, or the Pareto front."""
        done = [one for one in self.finished if one.state == "done" and one.objectives]
        return [done[i] for i in pareto_front(self.search, [one.objectives or () for one in done])]

    def trials(self, seeds: list[int]) -> Iterator[Trial]:
        """Yield the trials to run on the test scenes: the best suggestions, with every seed."""
        best = self.best
        if len(best) > MOST_WINNERS:
            steps = (len(best) - 1) / (MOST_WINNERS - 1)
            best = [best[round(i * steps)] for i in range(MOST_WINNERS)]
        for i, one in enumerate(best, 1):
            name = "best" if self.search.single else f"pareto-{i}"
            title = f"Best of {self.search.trials}" if self.search.single else f"Front {i}"
            label = f"{self.prefix}{title} ({one.text})"
            for seed in seeds:
                spec = replace(one.trial.spec, seed=seed)
                yield replace(one.trial, spec=spec, case=f"{self.base.case}/{name}", label=label)

    def as_default(self, trial: Trial) -> Trial:
        """Return a trial of the base, labelled as the search's default."""
        return replace(trial, label=f"{self.prefix}Default ({text_of(self.values_of_base())})")

    @property
    def title(self) -> str:
        """Kind of search, for people."""
        algorithm = f"{self.search.algorithm} search"
        return "population based training" if self.search.population else algorithm

    def line(self) -> str:
        """Return the search's progress and best results in one line."""
        names = ", ".join(f"{name} {mode}" for name, mode in self.search.objectives.items())
        text = (
            f"{self.title} for {names}: {len(self.finished)} of "
            f"{self.search.trials} suggestions recorded"
        )
        shown = [(f"best so far #{one.index} ({one.text})", one) for one in self.best]
        shown += [("default", one) for one in self.finished if one.index == 0]
        for title, one in shown[-MOST_WINNERS - 1 :]:
            values = ", ".join(f"{value:.6g}" for value in one.objectives or ())
            text += f"; {title}: {values or one.state}"
        return text


def text_of(values: Values) -> str:
    """Return searched values as a text for labels."""
    return ", ".join(
        f"{k.split('.')[-1]} {v:g}" if isinstance(v, float) else f"{k.split('.')[-1]} {v}"
        for k, v in values.items()
    )


def with_values(trial: Trial, values: Values, where: str) -> Trial:
    """Return a trial with some values of its spec changed; raise `UserError` if one is invalid."""
    settings = asdict(trial.spec)
    seed = settings.pop("seed")
    for key, value in values.items():
        section, _, name = key.partition(".")
        settings[section][name] = value
    spec, _ = parse_trial(settings, seed, where)
    return replace(trial, spec=spec)


def check_search(plan: SearchPlan, check: Callable[[Trial, Survey], None]) -> None:
    """Raise `UserError` if a corner of the space, or the scheduler, would stop a suggestion later.

    `check` checks one trial.
    """
    search, epochs = plan.search, plan.base.spec.train.epochs
    for values in search.corners():
        where = f"{plan.where}: search.space, at {text_of(values)}"
        try:
            check(with_values(plan.base, values, where), plan.survey)
        except UserError as error:
            text = str(error)
            raise UserError(text if where in text else f"{where}: {text}") from None
    scheduler = search.scheduler
    if search.population:
        _check_intervals(plan)
    elif scheduler.name != "none" and scheduler.grace_epochs >= epochs:
        raise UserError(
            f"{plan.where}: search.scheduler.grace_epochs: found {scheduler.grace_epochs}, "
            f"expected less than train.epochs = {epochs}, because no trial is stopped otherwise"
        )


def _check_intervals(plan: SearchPlan) -> None:
    train, interval = plan.base.spec.train, plan.search.scheduler.interval_epochs
    where = f"{plan.where}: search.scheduler.interval_epochs: found {interval}"
    if interval >= train.epochs:
        raise UserError(
            f"{where}, expected less than train.epochs = {train.epochs}, because no member is "
            "replaced otherwise"
        )
    if interval % train.validate_every:
        raise UserError(
            f"{where}, expected a multiple of train.validate_every = {train.validate_every}, "
            "because members are compared by their validation"
        )
    if train.changes:
        raise UserError(
            f"{plan.where}: train.changes: found {len(train.changes)}, expected none, because pbt "
            "makes them"
        )


def refresh_search(
    plan: SearchPlan, runs: Mapping[str, Run], store: Store | None, lab: Lab
) -> SearchPlan:
    """Return the search with the suggestions, and their results, that are on record."""
    if plan.search.population:
        return _refresh_population(plan, runs, store, lab)
    suggested: dict[int, Values] = {}
    prefix = f"{SEARCH_TAG}.{plan.id}."
    for run in runs.values():
        for tag, text in run.data.tags.items():
            if tag.startswith(prefix):
                suggested[int(tag.removeprefix(prefix))] = json.loads(text)
    if plan.search.algorithm == "random":
        suggested = {i: suggest(plan.search, i, ()) for i in range(1, plan.search.trials)}
        suggested[0] = plan.values_of_base()
    suggestions = [
        outcome(plan, plan.suggestion(index, suggested[index]), runs, store, lab)
        for index in sorted(suggested)
        if index < plan.search.trials
    ]
    return replace(plan, suggestions=tuple(suggestions))


def _refresh_population(
    plan: SearchPlan, runs: Mapping[str, Run], store: Store | None, lab: Lab
) -> SearchPlan:
    """Return the population after the last comparison that all its members have reached."""
    search = plan.search
    steps: list[list[tuple[int, Values]]] = [[(0, plan.values_of_base())]]
    steps += [[(0, suggest(search, i, ()))] for i in range(1, search.trials)]
    replaced: list[Suggestion] = []
    epochs = plan.base.spec.train.epochs
    until = epochs
    for epoch in comparison_epochs(search, epochs):
        members = [plan.lineage(i, member_steps) for i, member_steps in enumerate(steps)]
        scores = [_score(plan, member, epoch, runs, store) for member in members]
        reached = [score for score in scores if score is not None]
        if len(reached) < len(scores):
            until = epoch
            break
        before = list(steps)
        moves = successors(search, epoch, [member.values for member in members], reached)
        for i, move in enumerate(moves):
            if move is not None:
                donor, values = move
                member = _at_replacement(plan, members[i], epoch, runs, store)
                replaced.append(replace(member, index=search.trials + len(replaced)))
                steps[i] = [*before[donor], (epoch, values)]
    members = [plan.lineage(i, member_steps) for i, member_steps in enumerate(steps)]
    present = [outcome(plan, member, runs, store, lab) for member in members]
    return replace(plan, suggestions=(*present, *replaced), until=until)


def _at_replacement(
    plan: SearchPlan, one: Suggestion, epoch: int, runs: Mapping[str, Run], store: Store | None
) -> Suggestion:
    """Return a member as it was when it was replaced, even if its run trained further later."""
    assert store is not None, "a member that was replaced has a run"
    history = metric_history(store, runs[one.key].info.run_id, _recorded(plan.search))
    past = {name: {e: v for e, v in h.items() if e <= epoch} for name, h in history.items()}
    objectives = _objectives(plan.search, one, past) if past["val_psnr"] else None
    return replace(one, state="stopped", epochs=epoch, objectives=objectives)


def _score(
    plan: SearchPlan, one: Suggestion, epoch: int, runs: Mapping[str, Run], store: Store | None
) -> float | None:
    """Return a member's score after an epoch, higher is better; None if it has not reached it."""
    run = runs.get(one.key)
    if run is None or store is None:
        return None
    ((metric, mode),) = plan.search.objectives.items()
    value = metric_history(store, run.info.run_id, (metric,))[metric].get(epoch)
    if value is None:
        return -math.inf if _diverged(run) else None
    return value if mode == "max" else -value


def _diverged(run: Run) -> bool:
    failed = run.info.status == "FAILED"
    return failed and run.data.tags.get(ERROR_TAG, "").startswith("training diverged")


def outcome(
    plan: SearchPlan, one: Suggestion, runs: Mapping[str, Run], store: Store | None, lab: Lab
) -> Suggestion:
    """Return a suggestion with the state and the objectives of its run, if it has one."""
    run = runs.get(one.key)
    if run is None or store is None:
        return one
    history = metric_history(store, run.info.run_id, ("loss", *_recorded(plan.search)))
    epochs = max(history["loss"], default=0)
    status, tags = run.info.status, run.data.tags
    if status == "FINISHED":
        state = "done"
    elif STOPPED_TAG in tags:
        # Whatever its status: a worker that is being stopped may still report that it has begun.
        state = "stopped"
    elif _diverged(run):
        state = "failed"
    else:
        state = "resume" if (lab.checkpoints(one.key) / STATE).is_file() else "new"
    objectives = None
    if state in ("done", "stopped") and history["val_psnr"]:
        objectives = _objectives(plan.search, one, history)
    return replace(one, state=state, epochs=epochs, objectives=objectives)


def _recorded(search: Search) -> set[str]:
    """Return the metrics that a search reads from its runs."""
    return {"val_psnr", *search.objectives} - {"parameters", "flops"}


def _objectives(
    search: Search, one: Suggestion, history: Mapping[str, Mapping[int, float]]
) -> tuple[float, ...]:
    """Return a suggestion's objectives at the epoch whose weights are kept."""
    psnr = history["val_psnr"]
    # The first of equal epochs, as training keeps it.
    best_epoch = max(sorted(psnr), key=lambda epoch: psnr[epoch])
    values = {name: history[name][best_epoch] for name in search.objectives if name not in COSTS}
    if "train_seconds" in search.objectives:
        values["train_seconds"] = history["train_seconds"][max(history["train_seconds"])]
    spec = one.trial.spec
    if "parameters" in search.objectives:
        values["parameters"] = parameters_of(spec.model)
    if "flops" in search.objectives:
        values["flops"] = flop_per_pixel(spec.model, spec.protocol.ratio)
    return tuple(values[name] for name in search.objectives)
