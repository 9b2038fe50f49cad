"""Search compared with the record: its suggestions, their results, and the best of them."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property

from feinfn.config import Change
from feinfn.data.source import Survey
from feinfn.errors import UserError
from feinfn.files import STATE
from mhiflab.paths import Lab
from mhiflab.plan.suggest import (
    Suggestion,
    comparison_epochs,
    pareto_front,
    successors,
    suggest,
)
from mhiflab.record import tag
from mhiflab.record.finished import RecordedRun
from mhiflab.study.expand import Trial
from mhiflab.study.identity import run_key
from mhiflab.study.search import COSTS, Search, Values
from mhiflab.study.spec import parse_trial, settings_of

MOST_WINNERS = 5
"""Suggestions of a Pareto front that are tested, spread evenly over it."""


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
    until: int = 0
    """Epoch of a population's next comparison, or the last epoch; 0 before the record is read."""

    @cached_property
    def id(self) -> str:
        """Hash of the search, which the tags of its runs hold."""
        return self.search.identity(run_key(self.base.spec, self.survey.fingerprint))

    @property
    def tag_prefix(self) -> str:
        """Start of the tags by which its suggestions' runs hold their values; an index follows."""
        return f"{tag.SEARCH}.{self.id}."

    def values_of_base(self) -> Values:
        """Return the base's values of the searched keys: the search's first suggestion."""
        content = json.loads(json.dumps(asdict(self.base.spec)))
        return {key: content[key.split(".")[0]][key.split(".")[1]] for key in self.search.space}

    def suggestion(self, index: int, *steps: tuple[int, Values]) -> Suggestion:
        """Return a suggestion with its spec and run key.

        Each step holds an epoch and the values after it; the first epoch is 0.
        """
        trial = with_values(self.base, steps[0][1], self.where)
        changes = tuple(
            Change(after_epoch=epoch, **{key.removeprefix("train."): v for key, v in new.items()})
            for epoch, new in steps[1:]
        )
        if changes:
            train = replace(trial.spec.train, changes=changes)
            trial = replace(trial, spec=replace(trial.spec, train=train))
        return Suggestion(index, steps, trial, run_key(trial.spec, self.survey.fingerprint))

    @property
    def members(self) -> list[Suggestion]:
        """Suggestions known so far, without the replaced members of a population."""
        return [one for one in self.suggestions if one.index < self.search.trials]

    @property
    def finished(self) -> list[Suggestion]:
        """Suggestions whose result is known."""
        return [one for one in self.members if one.finished]

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

    @property
    def title(self) -> str:
        """Kind of search, for people."""
        search = self.search
        return "population based training" if search.population else f"{search.algorithm} search"

    def line(self) -> str:
        """Return the search's progress and best results in one line."""
        search = self.search
        names = ", ".join(f"{name} {mode}" for name, mode in search.objectives.items())
        text = f"{self.title} for {names}: {len(self.finished)} of {search.trials} suggestions "
        text += "recorded"
        shown = [(f"best so far #{one.index} ({one.text})", one) for one in self.best]
        shown += [("default", one) for one in self.finished if one.index == 0]
        for title, one in shown[-MOST_WINNERS - 1 :]:
            values = ", ".join(f"{value:.6g}" for value in one.objectives or ())
            text += f"; {title}: {values or one.state}"
        return text


def check_complete(searches: Iterable[SearchPlan], command: str) -> None:
    """Raise `UserError` if a search is not complete; `command` names its study to `mhiflab run`."""
    for one in searches:
        if not one.complete:
            raise UserError(
                f"{one.where}: its search is not complete; continue it first: mhiflab run {command}"
            )


def with_values(trial: Trial, values: Values, where: str) -> Trial:
    """Return a trial with some values of its spec changed; raise `UserError` if one is invalid."""
    settings = settings_of(trial.spec)
    seed = settings.pop("seed")
    if "model.base" in values:
        # What follows from the trial's own base does not hold for another.
        settings["model"]["shown"] = trial.shown
    for key, value in values.items():
        section, _, name = key.partition(".")
        settings[section][name] = value
    # The data are the trial's own, which need not be on this machine if a record is read.
    spec, _ = parse_trial(settings, seed, where, lambda _: trial.spec.data)
    return replace(trial, spec=spec)


def refresh_search(plan: SearchPlan, runs: Mapping[str, RecordedRun], lab: Lab) -> SearchPlan:
    """Return the search with the suggestions, and their results, that are on record.

    Results that the search holds already are not read again.
    """
    search = plan.search
    known: dict[int, Values] = {}
    if search.algorithm == "random":
        known = {i: suggest(search, i, ()) for i in range(1, search.trials)}
        known[0] = plan.values_of_base()
    else:
        for run in runs.values():
            for name, text in run.tags.items():
                if name.startswith(plan.tag_prefix):
                    known[int(name.removeprefix(plan.tag_prefix))] = json.loads(text)
    members = [plan.suggestion(i, (0, known[i])) for i in sorted(known) if i < search.trials]
    replaced: list[Suggestion] = []
    epochs = plan.base.spec.train.epochs
    for until in comparison_epochs(search, epochs):
        scores = [_score(search, runs.get(one.key), until) for one in members]
        reached = [score for score in scores if score is not None]
        if len(reached) < len(scores):
            break
        before = list(members)
        moves = successors(search, until, [one.values for one in before], reached)
        for i, move in enumerate(moves):
            if move is not None:
                donor, values = move
                left = replace(before[i], index=search.trials + len(replaced))
                replaced.append(_outcome(search, left, runs, lab, replaced_after=until))
                members[i] = plan.suggestion(i, *before[donor].steps, (until, values))
    else:
        until = epochs
    held = {one.key: one for one in plan.members if one.finished}
    present = [
        replace(held[one.key], index=one.index, steps=one.steps)
        if one.key in held
        else _outcome(search, one, runs, lab)
        for one in members
    ]
    return replace(plan, suggestions=(*present, *replaced), until=until)


def _score(search: Search, run: RecordedRun | None, epoch: int) -> float | None:
    """Return a member's score after an epoch, higher is better; None if it has not reached it."""
    if run is None:
        return None
    ((metric, mode),) = search.objectives.items()
    value = run.history(metric).get(epoch)
    if value is None:
        return -math.inf if _diverged(run) else None
    return value if mode == "max" else -value


def _diverged(run: RecordedRun) -> bool:
    failed = run.mlflow.info.status == "FAILED"
    return failed and run.tags.get(tag.ERROR, "").startswith("training diverged")


def _outcome(
    search: Search,
    one: Suggestion,
    runs: Mapping[str, RecordedRun],
    lab: Lab,
    replaced_after: int | None = None,
) -> Suggestion:
    """Return a suggestion with the state and the objectives of its run, if it has one.

    Of a member that was replaced after an epoch, what its run did later does not count.
    """
    run = runs.get(one.key)
    if run is None:
        return one
    names = {"loss", "val_psnr", *search.objectives} - {"parameters", "flops"}
    history = {name: run.history(name) for name in names}
    if replaced_after is not None:
        state = "stopped"
        history = {
            name: {epoch: value for epoch, value in values.items() if epoch <= replaced_after}
            for name, values in history.items()
        }
    elif run.mlflow.info.status == "FINISHED":
        state = "done"
    elif tag.STOPPED in run.tags:
        # Whatever its status: a worker that is being stopped may still report that it has begun.
        state = "stopped"
    elif _diverged(run):
        state = "failed"
    else:
        state = "resume" if (lab.checkpoints(one.key) / STATE).is_file() else "new"
    objectives = None
    if state in ("done", "stopped") and history["val_psnr"]:
        objectives = _objectives(search, one, history)
    epochs = replaced_after or max(history["loss"], default=0)
    return replace(one, state=state, epochs=epochs, objectives=objectives)


def _objectives(
    search: Search, one: Suggestion, history: Mapping[str, Mapping[int, float]]
) -> tuple[float, ...]:
    """Return a suggestion's objectives at the epoch whose weights are kept."""
    # Not above: plans of other studies need no torch.
    from feinfn.methods.cost import flop_per_pixel, parameters_of

    psnr, spec = history["val_psnr"], one.trial.spec
    # The first of equal epochs, as training keeps it.
    best_epoch = max(sorted(psnr), key=lambda epoch: psnr[epoch])
    values: list[float] = []
    for name in search.objectives:
        if name == "parameters":
            values.append(parameters_of(spec.model))
        elif name == "flops":
            values.append(flop_per_pixel(spec.model, spec.protocol.ratio))
        else:
            # A cost in seconds counts to the last epoch.
            epoch = max(history[name]) if name in COSTS else best_epoch
            values.append(history[name][epoch])
    return tuple(values)
