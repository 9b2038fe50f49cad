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
"""Share of all work after which its measured speed counts more than a forecast."""


@dataclass(frozen=True)
class Steps:
    """Epochs of a trial, and the test images that it fuses and scores after them."""

    epochs: int = 0
    images: int = 0

    def share(self, whole: "Steps") -> float:
        """Return the share of the whole, from 0 to 1, if the test is as long as one epoch."""
        tests = self.images / whole.images if whole.images else 0.0
        parts = whole.epochs + (whole.images > 0)
        return min(1.0, (self.epochs + tests) / parts) if parts else 1.0


def span_s(seconds: Mapping[str, float], slots: Mapping[str, int]) -> float:
    """Return the seconds from the first trial to the last, as a sweep executes them.

    Trials of one size spread evenly over their slots, but never take less than the longest. Those
    of other sizes follow when they are done.
    """
    by_slots: dict[int, list[float]] = {}
    for name, one in seconds.items():
        by_slots.setdefault(slots[name], []).append(one)
    return sum(max(sum(group) / n, *group) for n, group in by_slots.items())


@dataclass(frozen=True)
class _Lane:
    """One trial of the bar."""

    whole: Steps
    done: Steps
    before: float
    """Share that it did not do while the bar was shown: earlier, or never because it ended."""

    @property
    def share(self) -> float:
        return self.done.share(self.whole)


class TrialBar:
    """A bar over trials, each as long as its expected seconds; `progress` shows it.

    The time left follows from the forecast, if all trials have one, and later from the speed of the
    steps that were told.
    """

    def __init__(
        self,
        trials: Mapping[str, Steps],
        seconds: Mapping[str, float],
        slots: Mapping[str, int],
        console: Console,
        get_time: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take every trial's steps, the expected seconds of some, and the slots, by name."""
        self._trials, self._seconds, self._slots = trials, dict(seconds), slots
        self._get_time = get_time
        self._began_s = self._last_s = get_time()
        # Replaced, never changed: another thread draws the bar.
        self._lanes: dict[str, _Lane] = {}
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
            done = sum(getattr(lane.done, kind) for lane in self._lanes.values())
            if total:
                parts.append(f"{done}/{total} {kind}")
        return ", ".join(parts)

    @property
    def share(self) -> float:
        """Share of all expected seconds that is done, from 0 to 1."""
        return self._sum({name: lane.share for name, lane in self._lanes.items()})

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest takes; None if they are not known yet."""
        known = self._trials.keys() <= self._seconds.keys()
        lanes = self._lanes
        measured = self._sum({name: lane.share - lane.before for name, lane in lanes.items()})
        if measured > MEASURED * known:
            total = (self._last_s - self._began_s) / measured
        elif known:
            total = span_s({name: self._seconds[name] for name in self._trials}, self._slots)
        else:
            return None
        return max(0.0, (1 - self.share) * total - (self._get_time() - self._last_s))

    def expect(self, seconds: Mapping[str, float]) -> None:
        """Take the expected seconds of more trials; the rest counts as their mean."""
        self._seconds = {**self._seconds, **seconds}
        self.progress.update(self._task, completed=self.share)

    def move(self, trial: str, done: Steps, whole: Steps, step_s: float, text: str) -> None:
        """Show that a trial has done one more step, which took some seconds, or several.

        It is never shown to have done less than before, as one that begins again would have.
        """
        self._last_s = self._get_time()
        if not self._lanes:
            self._began_s = self._last_s - step_s
        lane = self._lanes.get(trial)
        if lane is None:
            # A continued trial made its other steps before this bar was shown.
            one = Steps(min(1, done.epochs), 0) if done.images == 0 else Steps(0, 1)
            before = Steps(done.epochs - one.epochs, done.images - one.images).share(whole)
            lane = _Lane(whole, Steps(), before)
        most = Steps(max(lane.done.epochs, done.epochs), max(lane.done.images, done.images))
        self._show(trial, _Lane(whole, most, lane.before), text)

    def end(self, trial: str, whole: Steps, text: str) -> None:
        """Show that a trial has ended; steps that it did not need tell no speed."""
        lane = self._lanes.get(trial, _Lane(whole, Steps(), 0.0))
        self._show(trial, _Lane(whole, whole, lane.before + 1 - lane.share), text)

    def _show(self, trial: str, lane: _Lane, text: str) -> None:
        self._lanes = {**self._lanes, trial: lane}
        self.progress.update(
            self._task, completed=self.share, description=escape(text), counts=self.counts
        )

    def _sum(self, shares: Mapping[str, float]) -> float:
        """Return the share of all expected seconds that shares of trials make."""
        seconds = self._seconds
        rest = mean(seconds.values()) if seconds else 1.0
        total = sum(seconds.get(name, rest) for name in self._trials)
        part = sum(seconds.get(name, rest) * share for name, share in shares.items())
        return min(1.0, part / total) if total else 0.0


class _TimeLeft(ProgressColumn):
    """The time that is left, or a dash."""

    def __init__(self, bar: TrialBar) -> None:
        super().__init__()
        self._bar = bar

    def render(self, task: Task) -> Text:
        left_s = self._bar.left_s
        return Text(f"ETA {'-' if left_s is None else timedelta(seconds=round(left_s))}")
