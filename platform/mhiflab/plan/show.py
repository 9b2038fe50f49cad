"""Print plans, and the states of runs, on the console."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Group
from rich.live import Live
from rich.markup import escape

from mhiflab.console import out
from mhiflab.grid import Cell, Grid
from mhiflab.paths import Lab
from mhiflab.plan.forecast import Forecast, Work, clock, forecast, recorded_speeds
from mhiflab.plan.plan import STATES, Entry, Plan, plan_refresher

WATCH_S = 2.0
"""Seconds between two looks at the record."""


def show_plan(path: Path, smoke: bool, lab: Lab, keys: bool = False) -> None:
    """Print a study's plan and forecast, with run keys if asked for."""
    plan = plan_refresher(path, smoke, lab)()
    print_plan(plan)
    for entry in plan.entries if keys else ():
        out.print(f"{entry.key[:12] or '-':12}  {entry.state:8} {escape(entry.who)}")
    print_forecast(plan, [*plan.unsearched, *plan.missing])


def print_plan(plan: Plan) -> None:
    """Print the state of every trial, the searches' progress, and the number left to execute."""
    out.print(state_grid(plan))
    for line in (*remarks(plan), counts_line(plan)):
        out.print(escape(line), soft_wrap=True)


def state_grid(plan: Plan, progress: bool = False) -> Grid:
    """Return a table of states: a row for every case, a column for every seed."""
    entries_of: dict[str, list[Entry]] = {}
    for entry in plan.entries:
        entries_of.setdefault(entry.trial.case, []).append(entry)
    rows = []
    for entries in entries_of.values():
        trial = entries[0].trial
        states = [Cell(e.state, e.state, _progress(e) if progress else "") for e in entries]
        # A case that is not trained has one trial for all seeds.
        states += [Cell("-")] * (len(plan.study.seeds) - len(states))
        counts = dict.fromkeys(e.trial.resources.workers for e in entries)
        workers = Cell(", ".join(str(n or "in process") for n in counts))
        epochs = trial.spec.train.epochs
        count = Cell(str(epochs) if trial.spec.trained else "-", value=epochs)
        rows.append([Cell(trial.label), *states, workers, count])
    head = ["case", *(f"seed {seed}" for seed in plan.study.seeds), "workers", "epochs"]
    return Grid(head, rows, f"{plan.name}: {plan.study.title}")


def _progress(entry: Entry) -> str:
    """Return in words the epochs, the last validation PSNR and the training time of a trial."""
    metrics = entry.run.metrics if entry.run else {}
    parts = []
    if "epoch" in metrics:
        parts.append(f"{metrics['epoch']:.0f}/{entry.trial.spec.train.epochs} epochs")
    if "val_psnr" in metrics:
        parts.append(f"{metrics['val_psnr']:.2f} dB")
    if "train_seconds" in metrics:
        parts.append(clock(metrics["train_seconds"]))
    return " · ".join(parts)


def remarks(plan: Plan) -> list[str]:
    """Return the searches' progress, and why trials are blocked, failed or new again."""
    return [*(f"{one.base.case}: {one.line()}" for one in plan.searches), *reasons(plan)]


def reasons(plan: Plan, at_most: int = 5) -> list[str]:
    """Return a line for every reason why trials are blocked, failed or new again, `at_most`."""
    by_reason: dict[str, list[Entry]] = {}
    again = [entry for entry in plan.unique("new") if entry.why]
    for entry in (*plan.unique("blocked", "failed"), *again):
        by_reason.setdefault(f"{entry.state}: {entry.why}", []).append(entry)
    lines = []
    for text, entries in list(by_reason.items())[:at_most]:
        others = f" and {len(entries) - 1} more" if len(entries) > 1 else ""
        lines.append(f"{entries[0].who}{others} {text}")
    if len(by_reason) > at_most:
        lines.append(f"and {len(by_reason) - at_most} further reasons")
    return lines


def counts_line(plan: Plan) -> str:
    """Return the number of trials that a run would execute, and the number in each state."""
    counts = Counter(entry.state for entry in plan.unique(*STATES))
    by_state = ", ".join(f"{counts[state]} {state}" for state in STATES if counts[state])
    return f"{len(plan.missing)} of {counts.total()} trials to execute ({by_state})"


def print_forecast(plan: Plan, entries: Sequence[Entry]) -> Forecast:
    """Print the forecast of some trials, and return it."""
    expected = forecast_of(plan, entries)
    if entries:
        out.print(expected.line)
    return expected


def forecast_of(plan: Plan, entries: Sequence[Entry]) -> Forecast:
    """Return the forecast of some trials of a plan, from all runs on record."""
    works = {entry.key: work_of(entry) for entry in entries}
    return forecast(works, recorded_speeds(plan.recorded))


def work_of(entry: Entry) -> Work:
    """Return the computations of a trial that is not blocked."""
    assert entry.survey is not None, "a trial that is not blocked has a survey"
    return Work(entry.trial.spec, entry.trial.resources, entry.survey)


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


def status_table(plan: Plan) -> Group:
    """Return a table of every trial's state, epochs, validation PSNR, time trained and time left.

    Below it stand the searches' progress, reasons of failures, counts and a forecast.
    """
    head = ("case", "seed", "state", "epochs", "val PSNR", "trained", "left", "run key")
    grid = Grid(head, [_row(entry) for entry in plan.entries], f"{plan.name}: {plan.study.title}")
    lines = [*remarks(plan), f"{counts_line(plan)}, {time.strftime('%H:%M:%S')}"]
    expected = forecast_of(plan, plan.unique("new", "resume", "running"))
    return Group(grid, *map(escape, lines), expected.line)


def _row(entry: Entry) -> list[Cell]:
    spec, metrics = entry.trial.spec, entry.run.metrics if entry.run else {}
    epoch, trained_s = int(metrics.get("epoch", 0)), metrics.get("train_seconds", 0.0)
    running, psnr = epoch and entry.state == "running", metrics.get("val_psnr")
    left_s = (spec.train.epochs - epoch) * trained_s / epoch if running else None
    return [
        Cell(entry.trial.label),
        Cell(str(spec.seed), value=spec.seed),
        Cell(entry.state, entry.state),
        Cell(f"{epoch}/{spec.train.epochs}" if spec.trained else "-", value=epoch),
        Cell("" if psnr is None else f"{psnr:.2f}", value=psnr),
        Cell(clock(trained_s) if trained_s else "", value=trained_s),
        Cell("" if left_s is None else clock(left_s), value=left_s),
        Cell(entry.key[:12], "key"),
    ]
