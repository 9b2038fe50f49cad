"""The bar counts what trials do, and its time left follows from their speed."""

import io

import pytest
from rich.console import Console

from mhiflab.progress import Steps, TrialBar


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def bar_of(trials: dict[str, Steps], clock: Clock, **seconds: float) -> TrialBar:
    console = Console(file=io.StringIO(), width=200)
    return TrialBar(trials, seconds, 2, console, clock)


def test_classical_trials_count_images_and_no_epochs(clock):
    whole = Steps(images=11)
    bar = bar_of({"a": whole, "b": whole}, clock)
    assert bar.counts == "0/22 images"
    assert bar.left_s is None
    clock.now_s = 110
    bar.move("a", Steps(images=1), whole, "Bicubic, seed 1, test")
    assert bar.left_s is None, "one image tells no speed"
    clock.now_s = 130
    bar.move("a", Steps(images=3), whole, "Bicubic, seed 1, test")
    assert bar.counts == "3/22 images"
    assert bar.left_s == pytest.approx(190), "19 images at 10 s"
    clock.now_s = 135
    assert bar.left_s == pytest.approx(185)


def test_a_trial_is_as_long_as_its_forecast(clock):
    trials = {"quick": Steps(images=4), "slow": Steps(20, 4)}
    bar = bar_of(trials, clock, quick=10, slow=90)
    assert bar.counts == "0/20 epochs, 0/8 images"
    assert bar.left_s == pytest.approx(50), "100 s, two at once"
    clock.now_s = 105
    assert bar.left_s == pytest.approx(45)
    bar.move("quick", Steps(images=4), trials["quick"], "Bicubic")
    assert bar.share == pytest.approx(0.1)
    assert bar.left_s == pytest.approx(45)
    clock.now_s = 115
    bar.move("slow", Steps(epochs=4), trials["slow"], "FeINFN")
    assert bar.share == pytest.approx(0.28)
    assert bar.left_s == pytest.approx(0.72 * 10 / 0.18), "measured now"


def test_images_of_trained_trials_are_counted_but_epochs_make_the_share(clock):
    whole = Steps(5, 9)
    bar = bar_of({"a": whole}, clock)
    bar.move("a", Steps(epochs=5), whole, "FeINFN")
    bar.move("a", Steps(images=9), whole, "FeINFN, test")
    assert bar.counts == "5/5 epochs, 9/9 images"
    assert bar.share == 1
    # A trial that begins again had done its steps before.
    bar.move("a", Steps(epochs=2), whole, "FeINFN")
    assert bar.counts == "5/5 epochs, 9/9 images"


def test_trials_without_a_forecast_weigh_as_the_others_do(clock):
    whole = Steps(epochs=2)
    bar = bar_of({"a": whole, "b": whole}, clock)
    bar.move("a", whole, whole, "a")
    assert bar.share == 0.5
    bar.expect({"a": 30})
    assert bar.share == 0.5
    bar.expect({"b": 90})
    assert bar.share == 0.25


def test_suggestions_of_a_search_move_the_bar_of_their_places(clock):
    whole = Steps(epochs=4)
    bar = bar_of({"search.0": whole, "search.1": whole}, clock, **{"search.0": 8, "search.1": 8})
    bar.move("key of the first", Steps(epochs=2), whole, "one")
    assert bar.share == 0.25
    assert bar.counts == "2/8 epochs"
