"""What the driver makes of the reports of its trials."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import RayActorError, RayTaskError
from tiny import job_of

from mhiflab.console import out
from mhiflab.execute.sweep import TrialMonitor
from mhiflab.paths import Lab
from mhiflab.plan.forecast import Forecast, forecast
from mhiflab.plan.plan import read_plan
from mhiflab.plan.show import work_of
from mhiflab.progress import TrialBar


class Sweep:
    """A monitor of a study's trials, of which nothing is known."""

    def __init__(self, study: Path) -> None:
        entries = read_plan(study).entries
        self.keys = {entry.trial.case: entry.key for entry in entries}
        jobs = {e.key: job_of(e, Lab(study.parent / "lab"), "", "") for e in entries}
        works = {entry.key: work_of(entry) for entry in entries}
        steps = {key: work.steps() for key, work in works.items()}
        self.expected: Forecast = forecast(works, [])
        self.bar = TrialBar(steps, {}, {}, out)
        self.monitor = TrialMonitor(jobs, self.expected, self.bar)

    def report(self, case: str, **result: Any) -> None:
        trial = SimpleNamespace(config={"key": self.keys[case]}, last_result=result)
        self.monitor.on_trial_result(0, [], trial, result)
        if "state" in result:
            self.monitor.on_trial_complete(0, [], trial)


@pytest.fixture
def sweep(write_study) -> Sweep:
    unbounded = {"resources.memory_mib": None, "resources.recompute": False}
    gsa = {"label": "GSA", "set": {"model.name": "gsa", **unbounded}}
    return Sweep(write_study(cases={"full": {"label": "FeINFN", "set": {}}, "gsa": gsa}))


def test_epochs_and_images_of_trials_move_the_bar(sweep):
    tests = sweep.bar.counts.split("/")[-1]
    sweep.report("gsa", images=1, of_images=2, expected_test_s=8.0)
    assert sweep.bar.counts == f"0/2 epochs, 1/{tests}"
    assert sweep.monitor.outcome.unfinished == {
        sweep.keys["gsa"]: "interrupted after 1 of 2 test images"
    }
    assert sweep.bar.left_s is not None, "one step tells the speed"
    sweep.report("full", epoch=1, train_seconds=3.0)
    assert sweep.bar.counts == f"1/2 epochs, 1/{tests}"
    sweep.report("full", state="failed", error="diverged")
    assert sweep.bar.counts.startswith("2/2 epochs")
    sweep.report("gsa", state="done")
    assert sweep.bar.share == 1
    assert sweep.monitor.outcome.done == [sweep.keys["gsa"]]
    assert not sweep.monitor.outcome.unfinished


def test_a_training_that_lacks_its_test_alone_has_all_its_epochs(sweep):
    sweep.report("full", images=1, of_images=2, expected_test_s=8.0)
    assert sweep.bar.counts.startswith("2/2 epochs, 1/")


def test_the_first_report_of_a_model_forecasts_the_others_of_its_kind(sweep):
    assert set(sweep.expected.unknown) == set(sweep.keys.values())
    sweep.report("full", epoch=1, train_seconds=3.0)
    assert sweep.monitor.forecast.seconds == {sweep.keys["full"]: pytest.approx(6)}
    assert set(sweep.monitor.forecast.unknown) == {sweep.keys["gsa"]}
    sweep.report("gsa", images=1, of_images=2, expected_test_s=8.0)
    assert sweep.monitor.forecast.seconds == {sweep.keys["gsa"]: pytest.approx(8)}


def test_a_trial_that_ended_without_a_state_says_why(sweep):
    lost = {
        "full": (RayActorError(), "lost: its process ended"),
        "gsa": (RayTaskError("run", "", ValueError("no such\nlines")), "lost: ValueError: no such"),
    }
    for case, (error, reason) in lost.items():
        config = {"key": sweep.keys[case]}
        trial = SimpleNamespace(config=config, get_pickled_error=lambda error=error: error)
        sweep.monitor.on_trial_error(0, [], trial)
        assert sweep.monitor.outcome.unfinished[sweep.keys[case]] == reason
