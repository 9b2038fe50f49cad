"""Print plans, and the states of runs, on the console."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from mhiflab.console import out
from mhiflab.paths import Lab
from mhiflab.plan.forecast import Forecast, Work, clock, forecast, recorded_speeds
from mhiflab.plan.plan import STATES, Entry, Plan, plan_refresher

WATCH_S = 2.0
"""Seconds between two looks at the record."""


def _table(plan: Plan, columns: Sequence[str]) -> Table:
    title = escape(f"{plan.name}: {plan.study.title}")
    return Table("case", *columns, title=title, title_justify="left")


def _state(entry: Entry) -> str:
    return f"[{STATES[entry.state]}]{entry.state}[/]"


def status_table(plan: Plan) -> Group:
    """Return a table of every trial's state, epochs, validation PSNR, time trained and time left.

    Below it stand the searches' progress, reasons of failures, counts and a forecast.
    """
    table = _table(plan, ("seed", "state", "epochs", "val PSNR", "trained", "left", "run key"))
    for entry in plan.entries:
        spec, metrics = entry.trial.spec, entry.run.metrics if entry.run else {}
        epoch, trained_s = int(metrics.get("epoch", 0)), metrics.get("train_seconds", 0.0)
        running = epoch and entry.state == "running"
        table.add_row(
            escape(entry.trial.label),
            str(spec.seed),
            _state(entry),
            f"{epoch}/{spec.train.epochs}" if spec.trained else "-",
            f"{metrics['val_psnr']:.2f}" if "val_psnr" in metrics else "",
            clock(trained_s) if trained_s else "",
            clock((spec.train.epochs - epoch) * trained_s / epoch) if running else "",
            entry.key[:12],
        )
    lines = [*_remarks(plan), f"{counts_line(plan)}, {time.strftime('%H:%M:%S')}"]
    expected = forecast_of(plan, plan.unique("new", "resume", "running"))
    return Group(table, *map(escape, lines), expected.line)


def state_table(plan: Plan) -> Table:
    """Return a console table of states: a row for every case, a column for every seed."""
    table = _table(plan, [f"seed {seed}" for seed in plan.study.seeds])
    for column in ("workers", "epochs"):
        table.add_column(column, justify="right")
    rows: dict[str, list[Entry]] = {}
    for entry in plan.entries:
        rows.setdefault(entry.trial.case, []).append(entry)
    for entries in rows.values():
        trial = entries[0].trial
        # A case that is not trained has one trial for all seeds.
        cells = [*map(_state, entries), *["-"] * (len(plan.study.seeds) - len(entries))]
        workers = str(trial.resources.workers or "in process")
        epochs = str(trial.spec.train.epochs) if trial.spec.trained else "-"
        table.add_row(escape(trial.label), *cells, workers, epochs)
    return table


def counts_line(plan: Plan) -> str:
    """Return the number of trials that a run would execute, and the number in each state."""
    counts = Counter(entry.state for entry in plan.unique(*STATES))
    by_state = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return f"{len(plan.missing)} of {counts.total()} trials to execute ({by_state})"


def reasons(plan: Plan, at_most: int = 5) -> list[str]:
    """Return a line for every reason why trials are blocked or failed, `at_most` of them."""
    by_reason: dict[str, list[Entry]] = {}
    for entry in plan.unique("blocked", "failed"):
        by_reason.setdefault(f"{entry.state}: {entry.why}", []).append(entry)
    lines = []
    for text, entries in list(by_reason.items())[:at_most]:
        others = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
        lines.append(f"{entries[0].who}{others} {text}")
    if len(by_reason) > at_most:
        lines.append(f"and {len(by_reason) - at_most} further reasons")
    return lines


def _remarks(plan: Plan) -> list[str]:
    """Return the searches' progress, and why trials are blocked or failed."""
    return [*(f"{one.base.case}: {one.line()}" for one in plan.searches), *reasons(plan)]


def forecast_of(plan: Plan, entries: Sequence[Entry]) -> Forecast:
    """Return the forecast of some trials of a plan, from all runs on record."""
    works = {}
    for entry in entries:
        assert entry.survey is not None, "a trial that is not blocked has a survey"
        works[entry.key] = Work(entry.trial.spec, entry.trial.resources, entry.survey)
    return forecast(works, recorded_speeds(plan.recorded))


def print_plan(plan: Plan) -> None:
    """Print the state of every trial, the searches' progress, and the number left to execute."""
    out.print(state_table(plan))
    for line in (*_remarks(plan), counts_line(plan)):
        out.print(escape(line), soft_wrap=True)


def print_forecast(plan: Plan, entries: Sequence[Entry]) -> Forecast:
    """Print the forecast of some trials, and return it."""
    expected = forecast_of(plan, entries)
    if entries:
        out.print(expected.line)
    return expected


def show_plan(path: Path, smoke: bool, lab: Lab, keys: bool = False) -> None:
    """Print a study's plan and forecast, with run keys if asked for."""
    plan = plan_refresher(path, smoke, lab)()
    print_plan(plan)
    for entry in plan.entries if keys else ():
        out.print(f"{entry.key[:12] or '-':12}  {entry.state:8} {escape(entry.who)}")
    print_forecast(plan, [*plan.unsearched, *plan.missing])


def show_status(files: Sequence[Path], smoke: bool, lab: Lab, watch: bool = False) -> None:
    """Print the state of every run of studies; with `watch`, every few seconds until Ctrl-C."""
    refreshers = [plan_refresher(file, smoke, lab) for file in files]

    def tables() -> Group:
        return Group(*(status_table(refresh()) for refresh in refreshers))

    if not watch:
        out.print(tables())
        return
    with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as live:
        while True:
            live.update(tables(), refresh=True)
            time.sleep(WATCH_S)
