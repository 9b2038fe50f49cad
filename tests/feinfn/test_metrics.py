"""Metrics against the MATLAB package of this field."""

import json
import math

import numpy as np
import pytest
import torch
from reference import GOLDENS, arrays

from feinfn.errors import UserError
from feinfn.metrics import evaluate, psnr_per_band, ssim_per_band

PAIRS = json.loads((GOLDENS / "metrics.json").read_text())["pairs"]


@pytest.mark.parametrize("name", PAIRS)
def test_metrics_equal_matlab(name):
    pair = arrays(f"metrics_{name}")
    reference, fused = (torch.from_numpy(pair[k].astype(float) / 4096) for k in ("gt", "sr"))
    if "psnr_band" in pair and not np.isinf(pair["psnr_band"]).any():
        np.testing.assert_allclose(psnr_per_band(fused, reference), pair["psnr_band"], rtol=1e-6)
    np.testing.assert_allclose(ssim_per_band(fused, reference), pair["ssim_band"], rtol=1e-6)
    values = evaluate(fused, reference, PAIRS[name]["ratio"])
    for metric, value in values.items():
        expected = float(PAIRS[name]["matlab"][metric.upper()])
        if metric == "sam" and expected == 0:
            # acos near 1: one unit in the last place of the cosine is 1e-6 degrees.
            assert value < 2e-6
        else:
            assert value == expected or math.isclose(value, expected, rel_tol=1e-6), metric


def test_mismatched_and_nan_images_are_named():
    image = torch.rand(3, 16, 16)
    with pytest.raises(UserError, match="two equal shapes"):
        evaluate(image, image[:2], 4)
    with pytest.raises(UserError, match="NaN or inf"):
        evaluate(torch.full_like(image, math.nan), image, 4)
