"""Where the runs of a study stand, as the record tells it."""

import time

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from mhiflab.estimate import clock
from mhiflab.forecast import forecast, slots_here
from mhiflab.plan import STATES, Entry, Plan, counts_line, reasons


def _epoch(entry: Entry) -> tuple[int, float]:
    """Return the epochs that a run has recorded, and its seconds of training."""
    if entry.run is None:
        return 0, 0.0
    metrics = entry.run.data.metrics
    return int(metrics.get("epoch", 0)), metrics.get("train_seconds", 0.0)


def _row(entry: Entry) -> list[str]:
    epoch, seconds = _epoch(entry)
    epochs = entry.trial.spec.train.epochs
    metrics = entry.run.data.metrics if entry.run else {}
    left = (epochs - epoch) * seconds / epoch if epoch and entry.state == "running" else None
    psnr = metrics.get("val_psnr")
    return [
        escape(entry.trial.label),
        str(entry.trial.spec.seed),
        f"[{STATES[entry.state]}]{entry.state}[/]",
        f"{epoch}/{epochs}" if entry.trial.spec.trained else "-",
        "" if psnr is None else f"{psnr:.2f}",
        clock(seconds) if seconds else "",
        "" if left is None else clock(left),
        entry.key[:12],
    ]


def status_table(plan: Plan) -> Group:
    """Return every trial's state, epochs, last validation PSNR, training time and time left."""
    table = Table(title=escape(f"{plan.name}: {plan.study.title}"), title_justify="left")
    for column in ("case", "seed", "state", "epochs", "val PSNR", "trained", "left", "run key"):
        table.add_column(column)
    for entry in plan.entries:
        table.add_row(*_row(entry))
    parts: list[Table | Text] = [table]
    parts += [Text(f"{one.base.case}: {one.line()}") for one in plan.searches]
    parts += [Text(line) for line in reasons(plan)]
    parts.append(Text(f"{counts_line(plan)}, {time.strftime('%H:%M:%S')}"))
    waiting = plan.unique("new", "resume", "running")
    if waiting and (line := forecast(waiting, plan.recorded).line(slots_here(waiting))):
        parts.append(Text(f"Expected: {line}"))
    return Group(*parts)
