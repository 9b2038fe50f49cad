"""Paired statistics: hand-made cases, scipy, properties, and simulated error rates."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats as scipy_stats

from mhiflab.render.statistics.significance import (
    crossed_p,
    effect,
    holm,
    image_means,
    interval,
    permutation_p,
    smallest_p,
    standard_error,
    wilcoxon_p,
)

# Halves and quarters, so that sums are exact and ties and zeros are frequent.
QUARTERS = st.integers(-12, 12).map(lambda n: n / 4)
SMALL = arrays(float, st.integers(1, 9), elements=QUARTERS)


def flips(count: int) -> np.ndarray:
    return np.array(list(itertools.product((-1, 1), repeat=count)))


def test_wilcoxon_by_hand():
    # All eight signs equally likely; only +++ and --- reach rank sums 6 and 0.
    assert wilcoxon_p(np.array([1.0, 2.0, 3.0])) == 2 / 8
    # Rank sums of 5 or 6 (and 1 or 0): +++, -++ and their mirrors.
    assert wilcoxon_p(np.array([-1.0, 2.0, 3.0])) == 4 / 8
    assert wilcoxon_p(np.zeros(5)) == 1


@given(SMALL)
@settings(deadline=None)
def test_wilcoxon_is_exact_with_ties_and_zeros(d):
    rank = scipy_stats.rankdata(abs(d)) * np.sign(d)
    sums = flips(len(d)) @ abs(rank)
    assert wilcoxon_p(d) == pytest.approx((abs(sums) >= abs(rank.sum()) - 1e-9).mean())


@pytest.mark.parametrize("count", [8, 25, 60])
def test_wilcoxon_equals_scipy_where_scipy_is_exact(count):
    d = np.random.default_rng(count).normal(0.2, 1, count)
    assert wilcoxon_p(d) == pytest.approx(scipy_stats.wilcoxon(d, method="exact").pvalue)


def test_wilcoxon_of_many_images_equals_scipys_approximation():
    d = np.round(np.random.default_rng(1).normal(0.1, 1, 300), 1)
    expected = scipy_stats.wilcoxon(d, zero_method="pratt", method="asymptotic").pvalue
    assert wilcoxon_p(d) == pytest.approx(expected, rel=1e-9)


@given(SMALL)
@settings(deadline=None)
def test_permutation_equals_all_flips(d):
    sums = abs(flips(len(d)) @ d)
    assert permutation_p(d) == pytest.approx((sums >= abs(d.sum()) - 1e-9).mean())


def test_permutation_of_more_images_is_near_the_exact_one_and_never_zero():
    d = np.random.default_rng(3).normal(0.5, 1, 16)
    sums = abs(flips(16) @ d)
    exact = (sums >= abs(d.sum()) - 1e-9).mean()
    assert permutation_p(d) == pytest.approx(exact, abs=4 * math.sqrt(exact / 20_000))
    assert permutation_p(d) == permutation_p(d)
    assert permutation_p(np.ones(40)) == 1 / 20_000


@pytest.mark.parametrize("count", [3, 6, 10])
def test_smallest_p_is_what_equal_signs_reach(count):
    d = np.arange(1.0, count + 1)
    assert wilcoxon_p(d) == permutation_p(d) == smallest_p(count)


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_raises_every_p_and_keeps_their_order(p):
    adjusted = holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert all(
        a <= b for (_, a), (_, b) in itertools.pairwise(sorted(zip(p, adjusted, strict=True)))
    )


def test_effects_by_hand():
    found = effect(np.array([3.0, 1.0, -2.0, 0.0]))
    # Pratt's ranks of 3, 1, 2 are 4, 2, 3: (4 + 2 - 3) / 9.
    assert found.rank_biserial == pytest.approx(1 / 3)
    assert found.superiority == 2.5 / 4
    assert found.mean == 0.5
    assert found.d_z == pytest.approx(0.5 / math.sqrt(13 / 3))
    assert math.isnan(effect(np.ones(4)).d_z)


@given(arrays(float, st.tuples(st.integers(2, 7), st.integers(1, 3)), elements=QUARTERS))
@settings(deadline=None, max_examples=40)
def test_antisymmetry_order_and_shift(d_IK):
    d, back = image_means(d_IK), image_means(-d_IK)
    assert wilcoxon_p(d) == wilcoxon_p(back)
    assert permutation_p(d) == permutation_p(back)
    a, b = effect(d), effect(back)
    assert (a.mean, a.rank_biserial) == (-b.mean, -b.rank_biserial)
    assert a.superiority == pytest.approx(1 - b.superiority)
    assert interval(d_IK, resamples=199) == pytest.approx(
        tuple(-x for x in reversed(interval(-d_IK, resamples=199)))
    )
    order = np.random.default_rng(0).permutation(len(d))
    assert wilcoxon_p(d[order]) == wilcoxon_p(d)
    assert permutation_p(d[order]) == permutation_p(d)
    # Both methods better by the same amount: only rounding could make a difference.
    moved = image_means((d_IK + 48.123) - 48.123)
    assert wilcoxon_p(moved) == wilcoxon_p(d)


def test_edge_cases_have_no_or_no_wide_interval():
    assert all(map(math.isnan, interval(np.ones((1, 3)))))
    assert interval(np.full((4, 2), 0.25)) == (0.25, 0.25)


def simulated(rng, images, seeds, by_seed=0.3, rest=0.3):
    shared = rng.normal(size=(images, 1)) + by_seed * rng.normal(size=seeds)
    return shared + rest * rng.normal(size=(images, seeds))


@pytest.mark.parametrize(("images", "seeds"), [(12, 3), (12, 1), (7, 3), (25, 5)])
def test_intervals_hold_the_truth_nearly_as_often_as_they_say(images, seeds):
    rng, runs = np.random.default_rng(11), 1000
    by_seed = 0.3 if seeds > 1 else 0.0
    held = 0
    for _ in range(runs):
        low, high = interval(simulated(rng, images, seeds, by_seed), resamples=499)
        held += low <= 0 <= high
    # The nominal level is 95%, two standard errors are 1.4%.
    assert 0.935 <= held / runs <= 0.98


@pytest.mark.parametrize(("by_seed", "most"), [(0.0, 0.05), (1.0, 0.06), (2.0, 0.07)])
def test_trainings_that_differ_make_no_false_claims(by_seed, most):
    rng, runs = np.random.default_rng(5), 1000
    claims = 0
    for _ in range(runs):
        d_IK = simulated(rng, 9, 3, by_seed, rest=0.5)
        low, high = interval(d_IK, resamples=199)
        claims += crossed_p(d_IK) < 0.05 and not low <= 0 <= high
    assert claims / runs <= most + 2 * math.sqrt(0.05 * 0.95 / runs)


def test_standard_error_by_hand():
    d_IK = np.array([[1.0, 3.0], [2.0, 6.0], [3.0, 9.0]])
    # Variances of the means: of images 4 / 3, of seeds 8 / 2.
    error, df = standard_error(d_IK)
    assert error == pytest.approx(math.sqrt(4 / 3 + 4))
    assert df == pytest.approx((4 / 3 + 4) ** 2 / ((4 / 3) ** 2 / 2 + 4**2 / 1))
    assert crossed_p(d_IK) == pytest.approx(2 * scipy_stats.t.sf(4 / error, df))
    one_seed = d_IK[:, :1]
    assert crossed_p(one_seed) == pytest.approx(scipy_stats.ttest_1samp(one_seed[:, 0], 0).pvalue)
    assert crossed_p(np.zeros((3, 2))) == 1
    assert math.isnan(crossed_p(d_IK[:1]))


def test_seeds_widen_the_interval_that_images_alone_would_have():
    rng = np.random.default_rng(2)
    d_IK = simulated(rng, 20, 3, by_seed=2.0)
    low, high = interval(d_IK)
    images_alone = scipy_stats.bootstrap((image_means(d_IK),), np.mean, rng=rng)
    narrow = images_alone.confidence_interval
    assert high - low > 1.5 * (narrow.high - narrow.low)


def test_tests_reject_a_true_null_as_rarely_as_they_say():
    rng, runs = np.random.default_rng(13), 2000
    # Skewed within seeds, symmetric over images.
    p = np.array(
        [
            (wilcoxon_p(d), permutation_p(d))
            for d in (image_means(simulated(rng, 11, 3, by_seed=0.0)) for _ in range(runs))
        ]
    )
    rejected = (p < 0.05).mean(axis=0)
    assert (rejected <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / runs)).all()
    assert (rejected >= 0.03).all()
