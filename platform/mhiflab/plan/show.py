"""Print plans, and the states of runs, on the console."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress

from rich.console import Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mhiflab.console import out
from mhiflab.paths import Lab
from mhiflab.plan.forecast import Forecast, clock, slots_here
from mhiflab.plan.forecast import forecast as forecast_of
from mhiflab.plan.plan import STATES, Entry, Plan, plan_refresher

WATCH_S = 2.0
"""Seconds between two looks at the record."""


def _epoch(entry: Entry) -> tuple[int, float]:
    """Return the epochs that a trial has recorded, and the seconds that they took."""
    if entry.run is None:
        return 0, 0.0
    metrics = entry.run.metrics
    return int(metrics.get("epoch", 0)), metrics.get("train_seconds", 0.0)


def _row(entry: Entry) -> list[str]:
    epoch, seconds = _epoch(entry)
    epochs = entry.trial.spec.train.epochs
    metrics = entry.run.metrics if entry.run else {}
    left_s = (epochs - epoch) * seconds / epoch if epoch and entry.state == "running" else None
    psnr = metrics.get("val_psnr")
    return [
        escape(entry.trial.label),
        str(entry.trial.spec.seed),
        f"[{STATES[entry.state]}]{entry.state}[/]",
        f"{epoch}/{epochs}" if entry.trial.spec.trained else "-",
        "" if psnr is None else f"{psnr:.2f}",
        clock(seconds) if seconds else "",
        "" if left_s is None else clock(left_s),
        entry.key[:12],
    ]


def status_table(plan: Plan) -> Group:
    """Return a table of every trial's state, epochs, validation PSNR, time trained and time left.

    Below it stand the searches' progress, reasons of failures, counts and a forecast.
    """
    table = Table(title=escape(f"{plan.name}: {plan.study.title}"), title_justify="left")
    for column in ("case", "seed", "state", "epochs", "val PSNR", "trained", "left", "run key"):
        table.add_column(column)
    for entry in plan.entries:
        table.add_row(*_row(entry))
    parts: list[Table | Text] = [table]
    parts += [Text(f"{search.base.case}: {search.line()}") for search in plan.searches]
    parts += [Text(line) for line in reasons(plan)]
    parts.append(Text(f"{counts_line(plan)}, {time.strftime('%H:%M:%S')}"))
    waiting = plan.unique("new", "resume", "running")
    if waiting and (line := forecast_of(waiting, plan.recorded).line(slots_here(waiting))):
        parts.append(Text(f"Expected: {line}"))
    return Group(*parts)


def state_table(plan: Plan) -> Table:
    """Return a console table of states: a row for every case, a column for every seed."""
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


def print_plan(plan: Plan) -> None:
    """Print the state of every trial, the searches' progress, and the number left to execute."""
    out.print(state_table(plan))
    for line in (*(f"{one.base.case}: {one.line()}" for one in plan.searches), *reasons(plan)):
        out.print(escape(line), soft_wrap=True)
    out.print(counts_line(plan))


def print_forecast(plan: Plan, entries: Sequence[Entry]) -> Forecast:
    """Print the forecast of some trials, and return it."""
    expected = forecast_of(entries, plan.recorded)
    if entries and (line := expected.line(slots_here(entries))):
        out.print(f"Expected: {line}")
    return expected


def show_study(
    study: str, smoke: bool, lab: Lab, keys: bool = False, forecast: bool = True
) -> None:
    """Print a study's plan, with run keys and a forecast if asked for."""
    plan = plan_refresher(study, smoke, lab)()
    print_plan(plan)
    if keys:
        for entry in plan.entries:
            out.print(f"{entry.key[:12] or '-':12}  {entry.state:8} {escape(entry.who)}")
    if forecast:
        print_forecast(plan, [*plan.unsearched, *plan.missing])


def show_status(study: str, smoke: bool, lab: Lab) -> None:
    """Print the state of every run of a study."""
    out.print(status_table(plan_refresher(study, smoke, lab)()))


def watch_status(study: str, smoke: bool, lab: Lab) -> None:
    """Show the state of every run of a study every few seconds, until Ctrl-C."""
    refresh = plan_refresher(study, smoke, lab)
    with suppress(KeyboardInterrupt), Live(console=out, auto_refresh=False) as live:
        while True:
            live.update(status_table(refresh()), refresh=True)
            time.sleep(WATCH_S)
