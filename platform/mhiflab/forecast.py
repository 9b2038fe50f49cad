"""What a plan will cost: device-hours, and the time until its last trial ends."""

from collections.abc import Sequence
from dataclasses import dataclass

from mlflow.entities import Run

from mhiflab.cluster import usable_cpus
from mhiflab.estimate import clock, forecast_s, measured, processors
from mhiflab.fit import held_by_trial
from mhiflab.plan import Entry


@dataclass(frozen=True)
class Forecast:
    """The expected cost of some trials."""

    seconds: dict[str, float]
    """Of every trial that can be forecast, by run key."""
    device_hours: float
    """CPU-hours, or GPU-hours of trials that use GPUs."""
    unknown: int
    """Trials on GPUs that nothing was measured on yet."""

    def line(self, at_once: int) -> str:
        """Return the forecast as a sentence, for trials that run so many at once."""
        if not self.seconds:
            return "" if not self.unknown else "no GPU run is on record yet: no forecast"
        total = sum(self.seconds.values())
        # The last trial of each slot ends at different times; none is shorter than the longest.
        eta = max(total / at_once, max(self.seconds.values()))
        text = f"about {self.device_hours:.2g} device-hours, {clock(eta)} with {at_once} at once"
        return text + (f"; {self.unknown} on GPUs cannot be forecast yet" if self.unknown else "")


def forecast(entries: Sequence[Entry], runs: Sequence[Run]) -> Forecast:
    """Return what trials will cost, from the rates of recorded runs (or one measured here)."""
    known = measured(runs)
    seconds: dict[str, float] = {}
    hours, unknown = 0.0, 0
    for entry in entries:
        assert entry.survey is not None, "a trial that is not blocked has a survey"
        found = forecast_s(entry.trial.spec, entry.trial.resources, entry.survey, known)
        if found is None:
            unknown += 1
            continue
        seconds[entry.key] = found
        hours += found * processors(entry.trial.resources) / 3600
    return Forecast(seconds, hours, unknown)


def slots_here(entries: Sequence[Entry]) -> int:
    """Return how many of these trials this machine's CPUs hold at once."""
    held = max(held_by_trial(entry.trial.resources)[0] for entry in entries)
    return max(1, int(usable_cpus() // held))
