"""Choice of the runs to compare: those of a study, or those that an MLflow filter finds."""

import re

from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from rich.markup import escape

from feinfn.errors import UserError, nearest
from mhiflab.console import out
from mhiflab.plan.plan import Entry, Plan
from mhiflab.record.store import KEY, KIND, Store, is_refusal, search_runs, trial_runs
from mhiflab.render.compare import AT_MOST


def runs_of_study(plan: Plan, cases: list[str], seeds: list[int]) -> list[Run]:
    """Return the finished runs of a study, of some cases and seeds if they are named.

    First the study's baseline, then cases as they were named, or in the study's order. Raises
    `UserError` for an unknown case or seed, and for more runs than are compared.
    """
    known = list(dict.fromkeys(entry.trial.case for entry in plan.entries))
    for case in cases:
        if case not in known:
            raise UserError(f"--case: found {case!r}, expected one of {', '.join(known)}")
    for seed in seeds:
        if seed not in plan.study.seeds:
            names = ", ".join(map(str, plan.study.seeds))
            raise UserError(f"--seed: found {seed}, expected one of {names}")
    base = plan.study.baseline
    order = list(dict.fromkeys(cases)) or known
    # Of a case with axes it is the first point, as in tables.
    order.sort(key=lambda case: base is None or case.split("/")[0] != base)
    wanted = [
        entry
        for case in order
        for entry in plan.entries
        if entry.trial.case == case and (not seeds or _is_of(entry, seeds))
    ]
    if left := [entry.who for entry in wanted if entry.state != "done"]:
        text = f"Left out, because they are not finished: {'; '.join(left)}"
        out.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)
    found = [entry for entry in wanted if entry.state == "done"]
    if len(found) > AT_MOST:
        ways = {
            f"--seed {seed}": sum(_is_of(entry, [seed]) for entry in found)
            for seed in dict.fromkeys(entry.trial.spec.seed for entry in found)
        }
        ways |= {f"--case {c!r}": sum(entry.trial.case == c for entry in found) for c in order}
        told = ", ".join(f"{way} leaves {left}" for way, left in ways.items())
        raise UserError(
            f"compare: found {len(found)} finished runs of {plan.name}, expected 2 to {AT_MOST}, "
            f"which can be told apart: {told}; or compare cases over all seeds: mhiflab table "
            f"{plan.command}"
        )
    return [entry.run for entry in found if entry.run]


def _is_of(entry: Entry, seeds: list[int]) -> bool:
    # What is not trained has one run for all seeds.
    return entry.trial.spec.seed in seeds or not entry.trial.spec.trained


def runs_of_filter(store: Store, text: str) -> list[Run]:
    """Return the finished runs that a filter finds, the oldest first."""
    try:
        found = search_runs(
            store, f"tags.`{KIND}` = 'trial' and attributes.status = 'FINISHED' and {text}"
        )
    except MlflowException as error:
        if not is_refusal(error):
            raise
        raise UserError(
            f"--filter: found {text!r}, which MLflow refuses ({str(error).splitlines()[0]}), "
            "expected a filter such as: metrics.test_psnr > 40 and tags.`mhiflab.case` = 'full'"
        ) from None
    if len(found) < 2:
        raise UserError(
            f"--filter {text!r}: found {len(found)} finished runs, expected 2 or more; "
            + (_unknown_metrics(store, text) or "ask for less")
        )
    return sorted(found, key=lambda run: (run.info.start_time, run.data.tags[KEY]))


def _unknown_metrics(store: Store, text: str) -> str:
    """Return in words which metrics that a filter names are those of no run."""
    known = {name for run in trial_runs(store).values() for name in run.data.metrics}
    found = re.findall(r"\bmetrics?\.(?:`([^`]+)`|\"([^\"]+)\"|([\w.]+))", text)
    unknown = dict.fromkeys(name for one in found if (name := "".join(one)) not in known)
    return "; ".join(
        f"no run has a metric {name!r}, {nearest(name, known)}expected one that a run's page in "
        "MLflow lists"
        for name in unknown
    )
