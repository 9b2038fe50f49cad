"""Bar of a sweep: what its trials have really done, and the time that the rest takes."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from statistics import mean

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

MEASURED = 0.1
"""Share of all steps after which their speed counts more than a forecast: they come in waves."""


@dataclass(frozen=True)
class Steps:
    """What a trial does: epochs, and then test images that it fuses and scores."""

    epochs: int = 0
    images: int = 0

    def share(self, whole: "Steps") -> float:
        """Return the share of the whole: of its epochs, or of its images if it has no epochs."""
        if whole.epochs:
            return self.epochs / whole.epochs
        return self.images / whole.images if whole.images else 0.0


class TrialBar:
    """A bar over trials, each as long as its expected seconds; `progress` shows it.

    The time left follows from the forecast, if all trials have one, and later from the speed since
    the first step that was told.
    """

    def __init__(
        self,
        trials: Mapping[str, Steps],
        seconds: Mapping[str, float],
        at_once: int,
        console: Console,
        get_time: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take the steps of every trial, and the expected seconds of some, by name."""
        self._trials, self._seconds, self._at_once = trials, dict(seconds), at_once
        self._get_time = get_time
        self._started = get_time()
        self._done: dict[str, tuple[Steps, Steps]] = {}
        self._told: list[tuple[float, dict[str, tuple[Steps, Steps]]]] = []
        self.progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[counts]}"),
            TimeElapsedColumn(),
            _TimeLeft(self),
            console=console,
        )
        self._task = self.progress.add_task("starting Ray", total=1, counts=self.counts)

    @property
    def counts(self) -> str:
        """Epochs and images done of all, in words; without a kind that no trial has."""
        parts = []
        for kind in ("epochs", "images"):
            total = sum(getattr(steps, kind) for steps in self._trials.values())
            done = sum(getattr(steps, kind) for steps, _ in self._done.values())
            if total:
                parts.append(f"{done}/{total} {kind}")
        return ", ".join(parts)

    @property
    def share(self) -> float:
        """Share of all expected seconds that is done, from 0 to 1."""
        return self._share(self._done)

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest takes; None if they are not known yet."""
        last = self._told[-1][0] if self._told else self._started
        known = self._trials.keys() <= self._seconds.keys()
        done = self.share - self._share(self._told[0][1]) if self._told else 0.0
        if done > MEASURED * known:
            total = (last - self._told[0][0]) / done
        elif known:
            total = sum(self._seconds[name] for name in self._trials) / self._at_once
        else:
            return None
        return max(0.0, (1 - self.share) * total - (self._get_time() - last))

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Take the expected seconds of more trials; the rest counts as their mean."""
        self._seconds |= seconds
        self.progress.update(self._task, completed=self.share)

    def move(self, trial: str, done: Steps, whole: Steps, text: str) -> None:
        """Show that a trial has done some of its steps; never less than it had done before."""
        before, _ = self._done.get(trial, (Steps(), whole))
        most = Steps(max(before.epochs, done.epochs), max(before.images, done.images))
        self._done[trial] = most, whole
        self._told[1:] = [(self._get_time(), dict(self._done))]
        self.progress.update(
            self._task, completed=self.share, description=escape(text), counts=self.counts
        )

    def _share(self, done: Mapping[str, tuple[Steps, Steps]]) -> float:
        rest = mean(self._seconds.values()) if self._seconds else 1.0
        total = sum(self._seconds.get(name, rest) for name in self._trials)
        sizes = (
            self._seconds.get(name, rest) * steps.share(whole)
            for name, (steps, whole) in done.items()
        )
        return min(1.0, sum(sizes) / total) if total else 0.0


class _TimeLeft(ProgressColumn):
    """The time that is left, or a dash."""

    def __init__(self, bar: TrialBar) -> None:
        super().__init__()
        self._bar = bar

    def render(self, task: Task) -> Text:
        left_s = self._bar.left_s
        return Text(f"ETA {'-' if left_s is None else timedelta(seconds=round(left_s))}")
