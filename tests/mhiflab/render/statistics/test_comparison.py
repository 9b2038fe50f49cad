"""Comparisons: their sentences, their warnings, and tables that cannot be compared."""

import numpy as np
import pandas as pd
import pytest

from feinfn.errors import UserError
from mhiflab.render.statistics.comparison import compare_methods, compare_two

FOURIER, SPATIAL = "The Fourier branch", "the spatial branch"


def table(gain: float, images: int = 12, seeds: int = 3, spread: float = 0.3) -> pd.DataFrame:
    """Return two methods' PSNR and SAM; their mean difference is exactly the gain and its minus."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(images):
        for k in range(seeds):
            base, noise = 40 + 3 * rng.normal(), spread * (-1) ** i * (i // 2 + 1) / 6
            about = {"scene": f"image {i}", "seed": k}
            rows.append({**about, "method": SPATIAL, "psnr": base, "sam": 5.0})
            better = base + gain + noise
            rows.append({**about, "method": FOURIER, "psnr": better, "sam": 5 - gain - noise})
    return pd.DataFrame(rows)


def verdict(frame: pd.DataFrame) -> str:
    return compare_two(frame, "psnr", FOURIER, SPATIAL).verdict()


def test_gain_in_words():
    found = compare_two(table(0.4, spread=0.6), "psnr", FOURIER, SPATIAL)
    assert 0 < found.low < 0.4 < found.high < 0.8
    assert found.verdict() == (
        "The Fourier branch gains 0.40 dB PSNR over the spatial branch (95% interval "
        f"{found.low:.2f} to {found.high:.2f}, p = {found.p_holm:.3f}, "
        "n = 12 images x 3 seeds)."
    )


def test_direction_follows_the_metric_and_the_order_of_methods():
    frame = table(0.4)
    psnr, sam = compare_methods(frame, ["psnr", "sam"], [FOURIER], SPATIAL)
    assert psnr.better
    assert sam.better
    assert "lowers SAM by 0.400 degrees" in sam.verdict()
    assert "which is better (" in sam.verdict()
    assert "Holm" not in sam.verdict()
    back, worse = compare_methods(frame, ["psnr", "sam"], [SPATIAL], FOURIER)
    assert back.shown
    assert not back.better
    assert "loses" in back.verdict()
    assert "raises SAM" in worse.verdict()
    assert back.effect.mean == -psnr.effect.mean
    assert (back.low, back.high) == pytest.approx((-psnr.high, -psnr.low))
    assert back.p_holm == psnr.p_holm


def test_no_difference_is_not_called_equality():
    assert verdict(table(0.0)).startswith(
        "No difference in PSNR between The Fourier branch and the spatial branch was shown (mean "
    )
    frame = table(0.0, spread=0.0)
    assert "mean 0.00 dB, 95% interval 0.00 to 0.00, p = 1.00" in verdict(frame)


def test_small_differences_keep_two_digits():
    assert "gains 0.0010 dB PSNR" in verdict(table(0.001, spread=0.0))


@pytest.mark.parametrize(
    ("images", "seeds", "parts"),
    [
        (12, 3, []),
        (12, 2, ["Two seeds"]),
        (12, 1, ["One seed"]),
        (5, 3, ["smallest p they can reach is 0.062", "Fewer than 6"]),
        (1, 1, ["1 image cannot", "Fewer than 6", "One seed"]),
    ],
)
def test_warnings_say_what_numbers_cannot_support(images, seeds, parts):
    found = compare_two(table(2.0, images, seeds), "psnr", FOURIER, SPATIAL)
    assert len(found.warnings()) == len(parts)
    for part, text in zip(parts, found.warnings(), strict=True):
        assert part in text
    if images < 6:
        assert not found.shown
        assert found.verdict().startswith("No difference")


def test_families_raise_what_images_must_reach():
    frame = table(2.0, images=6)
    third = frame[frame["method"] == FOURIER].assign(method="A third")
    methods, metrics = [FOURIER, "A third"], ["psnr", "sam"]
    found = compare_methods(pd.concat([frame, third]), metrics, methods, SPATIAL)
    # The cases of one metric are one family.
    assert [(one.metric, one.family) for one in found] == [(m, 2) for m in metrics for _ in methods]
    assert all(one.p_wilcoxon == 2**-5 for one in found)
    assert all(one.p_holm == 2**-4 for one in found)
    assert "after Holm over 2" in found[0].verdict()
    assert "6 images cannot show a difference in a family of 2" in found[0].warnings()[0]


def test_what_only_the_trainings_at_hand_show_is_not_claimed():
    frame = table(2.0)
    # One training is 4 dB better on every image, the others are as good as the baseline.
    lucky = (frame["method"] == FOURIER) & (frame["seed"] == 0)
    rest = (frame["method"] == FOURIER) & (frame["seed"] > 0)
    frame.loc[lucky, "psnr"] += 2
    frame.loc[rest, "psnr"] -= 1.9
    found = compare_two(frame, "psnr", FOURIER, SPATIAL)
    assert found.p_wilcoxon == 2**-11
    assert found.p_holm == found.p_crossed > 0.3
    assert found.low < 0 < found.high
    assert not found.shown
    assert found.verdict().endswith("3 seeds): the images agree, the trainings do not.")


def test_any_order_of_rows_gives_the_same_bytes():
    frame = table(0.4)
    shuffled = frame.sample(frac=1, random_state=1).reset_index(drop=True)
    every = [compare_methods(f, ["psnr", "sam"], [FOURIER], SPATIAL) for f in (frame, shuffled)]
    assert repr(every[0]) == repr(every[1])


def test_methods_without_seeds_stand_beside_every_seed():
    frame = table(0.4)
    plain = frame[(frame["method"] == SPATIAL) & (frame["seed"] == 0)]
    plain = plain.assign(method="Bicubic", seed=np.nan)
    both = pd.concat([frame, plain])
    for method, seeds in ((FOURIER, 3), ("Bicubic", 0)):
        found = compare_two(both, "psnr", method, "Bicubic")
        assert (found.images, found.seeds) == (12, seeds)


def test_images_without_a_finite_value_are_left_out_and_named():
    frame = table(0.4)
    black = (frame["scene"] == "image 3") & (frame["method"] == SPATIAL) & (frame["seed"] == 1)
    frame.loc[black, "sam"] = np.inf
    psnr, sam = compare_methods(frame, ["psnr", "sam"], [FOURIER], SPATIAL)
    assert (psnr.images, psnr.without) == (12, ())
    assert (sam.images, sam.without) == (11, ("image 3",))
    assert "SAM: without image 3, on which" in sam.warnings()[0]
    rest = compare_two(frame[frame["scene"] != "image 3"], "sam", FOURIER, SPATIAL)
    assert (rest.low, rest.high, rest.p_holm) == (sam.low, sam.high, sam.p_holm)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda f: pd.concat([f, f.iloc[:1]]),
            "scene 'image 0' seed 0: found 2 rows, expected one",
        ),
        (lambda f: f.iloc[1:], "scene 'image 0' seed 0: found 0 rows, expected one"),
        (lambda f: f.assign(psnr=np.nan), "found no scene on which both have a finite psnr"),
        (lambda f: f[(f["seed"] < 2) | (f["method"] == SPATIAL)], "seeds 2 belong to one"),
        (lambda f: f[(f["scene"] != "image 3") | (f["method"] == SPATIAL)], "scenes image 3"),
        (lambda f: f[f["method"] == FOURIER], "scenes image 0, .* belong to one"),
    ],
)
def test_tables_that_do_not_pair_are_refused(spoil, message):
    with pytest.raises(UserError, match=message):
        compare_two(spoil(table(0.4)), "psnr", FOURIER, SPATIAL)
