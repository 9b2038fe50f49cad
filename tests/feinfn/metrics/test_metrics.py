"""Indices against the MATLAB package of this field."""

import json
import math

import numpy as np
import pytest
import torch
from device import put
from reference import GOLDENS, arrays

from feinfn.errors import UserError
from feinfn.metrics.evaluation import Comparison, evaluate
from feinfn.metrics.hypercomplex import q2n
from feinfn.metrics.label import METRICS

PAIRS = json.loads((GOLDENS / "metrics.json").read_text())["pairs"]
MATLAB_NAMES = {"uiqi": "Q_avg"}


def pair(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (fused, reference) of a golden pair, float64."""
    found = arrays(f"metrics_{name}")
    fused, reference = (put(found[k].astype(float) / 4096) for k in ("sr", "gt"))
    return fused, reference


@pytest.mark.parametrize("name", PAIRS)
def test_metrics_equal_matlab(name):
    golden = arrays(f"metrics_{name}")
    fused, reference = pair(name)
    bands = Comparison(fused, reference).per_band(indices=("psnr", "ssim"))
    if "psnr_band" in golden and not np.isinf(golden["psnr_band"]).any():
        np.testing.assert_allclose(bands["psnr"].cpu(), golden["psnr_band"], rtol=1e-6)
    np.testing.assert_allclose(bands["ssim"].cpu(), golden["ssim_band"], rtol=1e-6)
    indices = (*METRICS, "scc", "uiqi")
    values = evaluate(fused, reference, PAIRS[name]["ratio"], indices=indices)
    for metric, value in values.items():
        expected = float(PAIRS[name]["matlab"][MATLAB_NAMES.get(metric, metric.upper())])
        if metric == "sam" and expected == 0:
            # acos near 1: one unit in the last place of the cosine is 1e-6 degrees.
            assert value < 2e-6
        else:
            assert value == expected or math.isclose(value, expected, rel_tol=1e-6), metric


@pytest.mark.parametrize("name", PAIRS)
def test_q2n_equals_matlab_on_black_and_white(name):
    """MATLAB's cast makes 0 or 1 of every value: no score, but the same arithmetic."""
    expected = PAIRS[name]["matlab"]["Q2n"]
    assert math.isclose(q2n(*pair(name), levels=1), expected, rel_tol=1e-6, abs_tol=1e-12)


def test_mismatched_and_nan_images_are_named():
    image = torch.rand(3, 16, 16)
    with pytest.raises(UserError, match="two equal shapes"):
        evaluate(image, image[:2], 4)
    with pytest.raises(UserError, match="NaN or inf"):
        evaluate(torch.full_like(image, math.nan), image, 4)
