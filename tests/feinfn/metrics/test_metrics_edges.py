"""Black pixels, zero bands, identical, broken and small images under every convention."""

import math

import numpy as np
import pytest
import torch
from reference import arrays
from test_metrics import pair

from feinfn.errors import UserError
from feinfn.metrics.conventions import CONVENTIONS, find_convention
from feinfn.metrics.evaluation import (
    ALL_INDICES,
    Comparison,
    compare,
    evaluate,
)
from feinfn.metrics.label import LABELS


def test_black_pixels():
    black = pair("zeropixels64_r4")
    sam = {name: evaluate(*black, 4, name)["sam"] for name in CONVENTIONS}
    assert math.isnan(sam["psrt"])
    left_out = Comparison(*black).maps()["sam_deg"]
    share = left_out.isnan().double().mean().item()
    assert sam["matlab"] == pytest.approx(left_out.nanmean().item(), rel=1e-12)
    # The epsilon of 1e-8 turns a lit pixel by less than 1e-4 degrees.
    assert sam["sfno"] == pytest.approx((1 - share) * sam["matlab"] + share * 90, abs=1e-4)
    nothing = torch.zeros(3, 16, 16)
    assert math.isnan(evaluate(nothing, nothing, 4)["sam"])
    assert evaluate(nothing, nothing, 4, "sfno")["sam"] == pytest.approx(90)


def test_maps_equal_matlab_and_add_up():
    fused, reference = pair("zeropixels64_r4")
    found = {name: x.cpu() for name, x in Comparison(fused, reference).maps().items()}
    golden = np.degrees(arrays("metrics_zeropixels64_r4")["sam_map_rad"])
    seen = ~found["sam_deg"].isnan().numpy()
    np.testing.assert_allclose(found["sam_deg"][seen], golden[seen], rtol=1e-6)
    np.testing.assert_allclose(found["error"], (fused - reference).abs().mean(0).cpu())
    assert Comparison(fused, reference).maps("released_python")["error"].shape == (63, 63)


def test_zero_bands():
    fused, reference = pair("noisy64_r4")
    reference = reference.clone()
    reference[3] = 0
    assert evaluate(fused, reference, 4)["ergas"] == math.inf
    both = fused.clone()
    both[3] = 0
    assert math.isnan(evaluate(both, reference, 4)["ergas"])
    bands = Comparison(both, reference).per_band()
    assert bands["psnr"][3] == math.inf
    assert bands["uiqi"][3] == 1
    both[5] = 0.3
    assert Comparison(both, reference).per_band(indices=("cc",))[
        "cc"
    ].isnan().nonzero().flatten().tolist() == [3, 5]


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_identical_images_are_perfect(convention):
    image = torch.rand(5, 64, 64, generator=torch.Generator().manual_seed(1)).double() + 0.1
    values = evaluate(image / 2, image / 2, 4, convention, ALL_INDICES)
    cap = 80 if convention == "sfno" else math.inf
    assert values.pop("psnr") == pytest.approx(cap, rel=1e-12)
    # acos near 1: one unit in the last place of the cosine is 1e-6 degrees; sfno's epsilon more.
    assert values.pop("sam") < (0.02 if convention == "sfno" else 2e-6)
    for index, value in values.items():
        assert value == pytest.approx(float(LABELS[index].higher_is_better), abs=1e-12), index


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_per_band_values_average_to_the_whole(convention):
    fused, reference = pair("noisy64_r4")
    bands = Comparison(fused, reference).per_band(convention)
    whole = evaluate(fused, reference, 4, convention, ALL_INDICES)
    for index in ("ssim", "cc", "uiqi"):
        assert bands[index].mean().item() == pytest.approx(whole[index], rel=1e-12)
    assert bands["rmse"].square().mean().sqrt().item() == pytest.approx(whole["rmse"], rel=1e-12)
    if convention != "psrt":  # one MSE over the cube
        assert bands["psnr"].mean().item() == pytest.approx(whole["psnr"], rel=1e-12)
    assert compare(fused, reference, 4)[convention] == whole


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_nan_is_refused(convention):
    image = torch.rand(3, 40, 40)
    broken = image.clone()
    broken[1, 2, 3] = math.nan
    with pytest.raises(UserError, match="NaN or inf"):
        evaluate(broken, image, 4, convention)


def test_small_images_name_the_index_that_needs_more():
    image = torch.rand(3, 10, 40)
    with pytest.raises(UserError, match="expected at least 11x11 for ssim under matlab"):
        evaluate(image, image, 4)
    assert evaluate(image, image, 4, "released_python")["ssim"] == 1
    assert evaluate(image, image, 4, indices=("psnr",))["psnr"] == math.inf
    with pytest.raises(UserError, match="32x32 for uiqi"):
        evaluate(image, image, 4, indices=("uiqi",))


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(UserError, match="found 'Matlb', did you mean 'matlab'"):
        find_convention("Matlb")
    image = torch.rand(3, 16, 16)
    with pytest.raises(
        UserError, match=r"indices: found 'psnrr', did you mean 'psnr'\? expected some of psnr"
    ):
        evaluate(image, image, 4, indices=("psnrr",))
    with pytest.raises(UserError, match="indices: found 'sam', expected some of psnr, ssim"):
        Comparison(image, image).per_band(indices=("sam",))
