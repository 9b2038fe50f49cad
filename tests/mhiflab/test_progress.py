"""The bar counts what trials do, and its time left follows from their speed."""

import io

import pytest
from rich.console import Console

from mhiflab.progress import Steps, TrialBar, span_s


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def bar_of(trials: dict[str, Steps], clock: Clock, at_once: int = 2, **seconds: float) -> TrialBar:
    console = Console(file=io.StringIO(), width=200)
    return TrialBar(trials, seconds, dict.fromkeys(trials, at_once), console, clock)


def test_trials_of_several_sizes_follow_one_another():
    seconds = {"a": 60.0, "b": 60.0, "c": 60.0, "wide": 100.0}
    assert span_s(seconds, {"a": 2, "b": 2, "c": 2, "wide": 1}) == 90 + 100
    assert span_s({"a": 60.0, "b": 10.0}, {"a": 2, "b": 2}) == 60


def test_classical_trials_count_images_and_no_epochs(clock):
    whole = Steps(images=11)
    bar = bar_of({"a": whole, "b": whole}, clock)
    assert bar.counts == "0/22 images"
    assert bar.left_s is None
    clock.now_s = 110
    bar.move("a", Steps(images=1), whole, 10, "Bicubic, seed 1, test")
    assert bar.left_s == pytest.approx(210), "21 images at 10 s"
    clock.now_s = 130
    bar.move("a", Steps(images=3), whole, 10, "Bicubic, seed 1, test")
    assert bar.counts == "3/22 images"
    assert bar.left_s == pytest.approx(190)
    clock.now_s = 135
    assert bar.left_s == pytest.approx(185)


def test_a_trial_is_as_long_as_its_forecast(clock):
    trials = {"quick": Steps(images=4), "slow": Steps(19, 4)}
    bar = bar_of(trials, clock, quick=10, slow=90)
    assert bar.counts == "0/19 epochs, 0/8 images"
    assert bar.left_s == pytest.approx(90), "no less than the longest"
    clock.now_s = 105
    assert bar.left_s == pytest.approx(85)
    bar.move("quick", Steps(images=4), trials["quick"], 1, "Bicubic")
    assert bar.share == pytest.approx(0.1)
    assert bar.left_s == pytest.approx(0.9 * 90)
    clock.now_s = 115
    bar.move("slow", Steps(epochs=4), trials["slow"], 2, "FeINFN")
    bar.move("slow", Steps(epochs=8), trials["slow"], 2, "FeINFN")
    assert bar.share == pytest.approx(0.1 + 0.9 * 8 / 20)
    # Measured now: the last of four images, and five of eight epochs.
    measured = 0.1 / 4 + 0.9 * 5 / 20
    assert bar.left_s == pytest.approx((1 - bar.share) * (1 + 10) / measured)


def test_a_training_is_not_done_before_its_test(clock):
    whole = Steps(5, 9)
    bar = bar_of({"a": whole}, clock)
    bar.move("a", Steps(epochs=5), whole, 1, "FeINFN")
    assert bar.share == pytest.approx(5 / 6)
    bar.move("a", Steps(5, 3), whole, 1, "FeINFN, test")
    assert bar.counts == "5/5 epochs, 3/9 images"
    # A trial that begins again had done its steps before.
    bar.move("a", Steps(epochs=2), whole, 1, "FeINFN")
    assert bar.counts == "5/5 epochs, 3/9 images"
    bar.end("a", whole, "FeINFN")
    assert bar.share == 1
    assert bar.left_s == 0


def test_steps_of_an_earlier_driver_tell_no_speed(clock):
    whole = Steps(epochs=20)
    bar = bar_of({"a": whole, "b": whole}, clock, a=3600, b=3600)
    assert bar.left_s == pytest.approx(3600)
    clock.now_s = 280
    bar.move("a", Steps(epochs=11), whole, 180, "a")
    clock.now_s = 281
    bar.move("b", Steps(epochs=11), whole, 180, "b")
    assert bar.left_s == pytest.approx(9 * 180), "by the forecast"
    for epoch in range(12, 15):
        clock.now_s += 180
        for name in "ab":
            bar.move(name, Steps(epochs=epoch), whole, 180, name)
    assert bar.left_s == pytest.approx(6 * 180, rel=0.01), "measured"


def test_trials_that_fail_or_stop_early_tell_no_speed(clock):
    whole = Steps(epochs=10)
    trials = {str(n): whole for n in range(10)}
    bar = bar_of(trials, clock, **dict.fromkeys(trials, 600.0))
    for name in "012":
        clock.now_s += 5
        bar.end(name, whole, name)
    assert bar.share == pytest.approx(0.3)
    assert bar.left_s == pytest.approx(0.7 * 3000 - 15, abs=20)


def test_a_first_wave_of_trials_tells_the_speed_of_all(clock):
    whole = Steps(epochs=20)
    trials = dict.fromkeys("abcd", whole)
    bar = bar_of(trials, clock, at_once=4)
    clock.now_s = 160
    for name in trials:
        bar.move(name, Steps(epochs=1), whole, 60, name)
    assert bar.left_s == pytest.approx(19 * 60)


def test_trials_without_a_forecast_weigh_as_the_others_do(clock):
    whole = Steps(epochs=2)
    bar = bar_of({"a": whole, "b": whole}, clock)
    bar.move("a", whole, whole, 1, "a")
    assert bar.share == 0.5
    bar.expect({"a": 30})
    assert bar.share == 0.5
    bar.expect({"b": 90})
    assert bar.share == 0.25


def test_trials_that_the_bar_did_not_know_count_as_their_mean(clock):
    # Suggestions of a search, whose keys follow from their values.
    whole = Steps(epochs=4)
    bar = bar_of({"search.0": whole, "search.1": whole}, clock, **{"search.0": 8, "search.1": 8})
    bar.move("key of the first", Steps(epochs=2), whole, 1, "one")
    assert bar.share == 0.25
    assert bar.counts == "2/8 epochs"
