"""A search against the record: its suggestions, what became of each, and which are the best."""

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
from mhiflab.plan.suggest import boundaries, front, successors, suggest
from mhiflab.record.store import ERROR_TAG, SEARCH_TAG, STOPPED_TAG, Store, metric_history
from mhiflab.study.expand import Trial
from mhiflab.study.identity import run_key
from mhiflab.study.search import COSTS, Search, Values
from mhiflab.study.spec import parse_trial

MOST_WINNERS = 5

FINISHED = ("done", "stopped", "failed")


@dataclass(frozen=True)
class Suggestion:
    """One suggestion and what the record says of it."""

    index: int
    values: Values
    trial: Trial
    key: str
    state: str = "new"
    """done, stopped (by the scheduler), failed (diverged): finished; resume and new are not."""
    epochs: int = 0
    objectives: tuple[float, ...] | None = None
    """Of the epoch whose weights are kept, the one of the best validation PSNR."""
    earlier: tuple[tuple[int, Values], ...] = ()
    """Values that it began with, and those it went on with after some epochs, before the last."""
    since: int = 0
    """The epoch after which `values` hold."""

    @property
    def steps(self) -> tuple[tuple[int, Values], ...]:
        """All its values, each with the epochs before them."""
        return (*self.earlier, (self.since, self.values))

    @property
    def text(self) -> str:
        """Its values as words for labels."""
        return "; ".join(
            f"after {epoch}: {text_of(values)}" if epoch else text_of(values)
            for epoch, values in self.steps
        )

    @property
    def finished(self) -> bool:
        """Whether the search has its result."""
        return self.state in FINISHED


@dataclass(frozen=True)
class SearchPlan:
    """A search around one base: a case at one point of the axes, with the study's first seed."""

    search: Search
    base: Trial
    survey: Survey
    where: str
    prefix: str = ""
    """What the rows of this search begin with where a study has several."""
    suggestions: tuple[Suggestion, ...] = ()
    """Those known so far by index; of a random search all of them. Behind a population's members
    stand what members were before they were replaced."""
    until: int | None = None
    """Epochs after which a population is compared next, or those of the whole training."""

    @cached_property
    def id(self) -> str:
        """The search's hash, which the tags of its runs carry."""
        return self.search.identity(run_key(self.base.spec, self.survey.fingerprint))

    def values_of_base(self) -> Values:
        """Return the searched keys' values of the base, the search's first suggestion."""
        content = json.loads(json.dumps(asdict(self.base.spec)))
        return {key: content[key.split(".")[0]][key.split(".")[1]] for key in self.search.space}

    def lineage(self, index: int, steps: Sequence[tuple[int, Values]]) -> Suggestion:
        """Return a member of a population that changed its values after some epochs."""
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
        """The suggestions whose result is known."""
        return [one for one in self.suggestions if one.finished and one.index < self.search.trials]

    @property
    def complete(self) -> bool:
        """Whether nothing is left to search."""
        return len(self.finished) == self.search.trials

    @property
    def best(self) -> list[Suggestion]:
        """The best of those trained to the end: one, or the points of the front."""
        done = [one for one in self.finished if one.state == "done" and one.objectives]
        return [done[i] for i in front(self.search, [one.objectives or () for one in done])]

    def trials(self, seeds: list[int]) -> Iterator[Trial]:
        """Yield what the test scenes are opened for: the best suggestions, with every seed."""
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

    def named(self, trial: Trial) -> Trial:
        """Return a trial of the base under the name it has in tables."""
        return replace(trial, label=f"{self.prefix}Default ({text_of(self.values_of_base())})")

    @property
    def title(self) -> str:
        """What kind of search it is."""
        algorithm = f"{self.search.algorithm} search"
        return "population based training" if self.search.population else algorithm

    def line(self) -> str:
        """Return the state of the search in one line."""
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
    """Return searched values as words for labels."""
    return ", ".join(
        f"{k.split('.')[-1]} {v:g}" if isinstance(v, float) else f"{k.split('.')[-1]} {v}"
        for k, v in values.items()
    )


def with_values(trial: Trial, values: Values, where: str) -> Trial:
    """Return a trial with some values of its spec changed, checked like a study's own."""
    settings = asdict(trial.spec)
    seed = settings.pop("seed")
    for key, value in values.items():
        section, _, name = key.partition(".")
        settings[section][name] = value
    spec, _ = parse_trial(settings, seed, where)
    return replace(trial, spec=spec)


def check_search(plan: SearchPlan, check: Callable[[Trial, Survey], None]) -> None:
    """Raise `UserError` for what would stop a suggestion later, at the corners of the space."""
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
            f"expected less than train.epochs = {epochs}: otherwise nothing is stopped"
        )


def _check_intervals(plan: SearchPlan) -> None:
    train, interval = plan.base.spec.train, plan.search.scheduler.interval_epochs
    where = f"{plan.where}: search.scheduler.interval_epochs: found {interval}"
    if interval >= train.epochs:
        raise UserError(
            f"{where}, expected less than train.epochs = {train.epochs}: otherwise nobody is "
            "replaced"
        )
    if interval % train.validate_every:
        raise UserError(
            f"{where}, expected a multiple of train.validate_every = {train.validate_every}: "
            "members are compared by their validation"
        )
    if train.changes:
        raise UserError(
            f"{plan.where}: train.changes: found {len(train.changes)}, expected none, because pbt "
            "makes them"
        )


def look(plan: SearchPlan, runs: Mapping[str, Run], store: Store | None, lab: Lab) -> SearchPlan:
    """Return the search with what the record knows of its suggestions."""
    if plan.search.population:
        return _look_at_population(plan, runs, store, lab)
    found: dict[int, Values] = {}
    prefix = f"{SEARCH_TAG}.{plan.id}."
    for run in runs.values():
        for tag, text in run.data.tags.items():
            if tag.startswith(prefix):
                found[int(tag.removeprefix(prefix))] = json.loads(text)
    if plan.search.algorithm == "random":
        found = {i: suggest(plan.search, i, ()) for i in range(1, plan.search.trials)}
        found[0] = plan.values_of_base()
    suggestions = [
        outcome(plan, plan.suggestion(index, found[index]), runs, store, lab)
        for index in sorted(found)
        if index < plan.search.trials
    ]
    return replace(plan, suggestions=tuple(suggestions))


def _look_at_population(
    plan: SearchPlan, runs: Mapping[str, Run], store: Store | None, lab: Lab
) -> SearchPlan:
    """Return the population as it is after the last epoch that all its members have reached."""
    search = plan.search
    steps: list[list[tuple[int, Values]]] = [[(0, plan.values_of_base())]]
    steps += [[(0, suggest(search, i, ()))] for i in range(1, search.trials)]
    gone: list[Suggestion] = []
    epochs = plan.base.spec.train.epochs
    until = epochs
    for epoch in boundaries(search, epochs):
        members = [plan.lineage(i, one) for i, one in enumerate(steps)]
        scores = [_score(plan, one, epoch, runs, store) for one in members]
        known = [score for score in scores if score is not None]
        if len(known) < len(scores):
            until = epoch
            break
        before = list(steps)
        moves = successors(search, epoch, [one.values for one in members], known)
        for i, move in enumerate(moves):
            if move is not None:
                donor, values = move
                left = _left(plan, members[i], epoch, runs, store)
                gone.append(replace(left, index=search.trials + len(gone)))
                steps[i] = [*before[donor], (epoch, values)]
    members = [plan.lineage(i, one) for i, one in enumerate(steps)]
    found = [outcome(plan, one, runs, store, lab) for one in members]
    return replace(plan, suggestions=(*found, *gone), until=until)


def _left(
    plan: SearchPlan, one: Suggestion, epoch: int, runs: Mapping[str, Run], store: Store | None
) -> Suggestion:
    """Return a member as it was when it was replaced, whatever its run was used for later."""
    assert store is not None, "a member that was replaced has a run"
    history = metric_history(store, runs[one.key].info.run_id, _recorded(plan.search))
    known = {name: {e: v for e, v in h.items() if e <= epoch} for name, h in history.items()}
    objectives = _objectives(plan.search, one, known) if known["val_psnr"] else None
    return replace(one, state="stopped", epochs=epoch, objectives=objectives)


def _score(
    plan: SearchPlan, one: Suggestion, epoch: int, runs: Mapping[str, Run], store: Store | None
) -> float | None:
    """Return how good a member was after an epoch, higher is better; None: not there yet."""
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
        # Whatever its status: a worker that is being stopped may still say that it has begun.
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
    """Return the metrics that runs record and a search reads."""
    return {"val_psnr", *search.objectives} - {"parameters", "flops"}


def _objectives(
    search: Search, one: Suggestion, history: Mapping[str, Mapping[int, float]]
) -> tuple[float, ...]:
    psnr = history["val_psnr"]
    # The first of the best, as training keeps it.
    kept = max(sorted(psnr), key=lambda epoch: psnr[epoch])
    values = {name: history[name][kept] for name in search.objectives if name not in COSTS}
    if "train_seconds" in search.objectives:
        values["train_seconds"] = history["train_seconds"][max(history["train_seconds"])]
    spec = one.trial.spec
    if "parameters" in search.objectives:
        values["parameters"] = parameters_of(spec.model)
    if "flops" in search.objectives:
        values["flops"] = flop_per_pixel(spec.model, spec.protocol.ratio)
    return tuple(values[name] for name in search.objectives)
