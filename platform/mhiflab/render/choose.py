"""Runs to compare: those of a study, or those that match an MLflow filter."""

import re

from mlflow.exceptions import MlflowException
from rich.markup import escape

from feinfn.errors import UserError, nearest
from mhiflab.console import out
from mhiflab.plan.plan import Finished, Plan
from mhiflab.record import tag
from mhiflab.record.database.errors import is_refusal
from mhiflab.record.finished import RecordedRun
from mhiflab.record.store import Store, search_runs, trial_runs
from mhiflab.render.compare import AT_MOST
from mhiflab.render.runs import chosen_entries


def runs_of_study(plan: Plan, cases: list[str], seeds: list[int]) -> list[RecordedRun]:
    """Return a study's finished runs of the given cases and seeds, by default of all.

    The study's baseline comes first, then the cases as given, or in the study's order. Raises
    `UserError` if a case or seed is unknown, or if there are more runs than can be compared.
    """
    baseline = plan.study.baseline
    # The baseline of a case with axes is its first point, as in tables.
    ordered_cases = sorted(
        dict.fromkeys(cases or plan.labels),
        key=lambda case: baseline is None or case.split("/")[0] != baseline,
    )
    entries = chosen_entries(plan, ordered_cases, seeds)
    if unfinished := [entry.who for entry in entries if entry.state != "done"]:
        text = f"Left out, because they are not finished: {'; '.join(unfinished)}"
        out.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)
    finished = [entry for entry in entries if isinstance(entry, Finished)]
    if len(finished) > AT_MOST:
        counts = {
            f"--seed {seed}": sum(entry.is_of([seed]) for entry in finished)
            for seed in dict.fromkeys(entry.trial.spec.seed for entry in finished)
        }
        counts |= {
            f"--case {c!r}": sum(entry.trial.case == c for entry in finished) for c in ordered_cases
        }
        choices = ", ".join(f"{way} leaves {count}" for way, count in counts.items())
        raise UserError(
            f"compare: found {len(finished)} finished runs of {plan.name}, expected 2 to "
            f"{AT_MOST}, which can be told apart: {choices}; or compare cases over all seeds: "
            f"mhiflab table {plan.command}"
        )
    return [entry.run for entry in finished]


def runs_of_filter(store: Store, text: str) -> list[RecordedRun]:
    """Return the finished runs that match an MLflow filter, the oldest first.

    Raises `UserError` if MLflow refuses the filter, or if fewer than two runs match.
    """
    try:
        runs = search_runs(
            store, f"tags.`{tag.KIND}` = 'trial' and attributes.status = 'FINISHED' and {text}"
        )
    except MlflowException as error:
        if not is_refusal(error):
            raise
        raise UserError(
            f"--filter: found {text!r}, which MLflow refuses ({str(error).splitlines()[0]}), "
            "expected a filter such as: metrics.test_psnr > 40 and tags.`mhiflab.case` = 'full'"
        ) from None
    if len(runs) < 2:
        raise UserError(
            f"--filter {text!r}: found {len(runs)} finished runs, expected 2 or more; "
            + (_unknown_metrics(store, text) or "ask for less")
        )
    runs.sort(key=lambda run: (run.info.start_time, run.data.tags[tag.KEY]))
    return [RecordedRun(store, run) for run in runs]


def _unknown_metrics(store: Store, text: str) -> str:
    """Return in words the metrics of a filter that no run has."""
    recorded_names = {name for run in trial_runs(store).values() for name in run.data.metrics}
    named = re.findall(r"\bmetrics?\.(?:`([^`]+)`|\"([^\"]+)\"|([\w.]+))", text)
    unknown = dict.fromkeys(name for one in named if (name := "".join(one)) not in recorded_names)
    return "; ".join(
        f"no run has a metric {name!r}, {nearest(name, recorded_names)}expected one that a run's "
        "page in MLflow lists"
        for name in unknown
    )
