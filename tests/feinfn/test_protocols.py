"""The protocol cave_x4, checked against a direct computation."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from feinfn.errors import UserError
from feinfn.filters import MATMUL_SIDE, filter_bands, gaussian_taps
from feinfn.protocols import PROTOCOLS, simulate

CAVE = PROTOCOLS["cave_x4"]
BANDS_NM = np.arange(400, 701, 10.0)


def test_lr_hsi_is_blur_and_every_fourth_pixel():
    cube = torch.rand(1, 31, 32, 48, dtype=torch.float64)
    pair = simulate(cube, BANDS_NM, CAVE)
    # truncate gives radius 1; scipy's "mirror" is torch's "reflect".
    blurred = ndimage.gaussian_filter(cube[0].numpy(), (0, 0.5, 0.5), mode="mirror", truncate=2.0)
    np.testing.assert_allclose(pair.lr_hsi_BShw[0], blurred[:, 2::4, 2::4], atol=1e-12)
    assert pair.lms_BSHW.shape == cube.shape
    assert pair.lms_BSHW.min() >= 0
    assert pair.lms_BSHW.max() <= 1


def test_msi_is_blue_green_red_and_rows_sum_to_one():
    response = CAVE.response(31, BANDS_NM).matrix
    assert torch.allclose(response.sum(dim=1), torch.ones(3, dtype=torch.float64))
    peaks = BANDS_NM[response.argmax(dim=1)]
    assert peaks[0] < peaks[1] < peaks[2]
    flat = simulate(torch.full((1, 31, 8, 8), 0.25), BANDS_NM, CAVE)
    assert torch.allclose(flat.msi_BMHW, torch.tensor(0.25))


def test_size_that_is_no_multiple_of_the_ratio_is_named():
    with pytest.raises(UserError, match=r"HR size 30x32 .* expected HR = 4 x LR; crop .* 28x32"):
        simulate(torch.rand(1, 31, 30, 32), BANDS_NM, CAVE)


def test_bands_outside_the_response_table_are_named():
    with pytest.raises(UserError, match="covers 400 to 700 nm"):
        CAVE.response(31, BANDS_NM + 20)


@pytest.mark.parametrize("padding", [0, 5])
def test_both_ways_of_filtering_agree(padding, monkeypatch):
    x, taps = torch.rand(2, 3, 40, 24, dtype=torch.float64), gaussian_taps(11, 1.5)
    assert max(x.shape[-2:]) <= MATMUL_SIDE
    product = filter_bands(x, taps, padding)
    monkeypatch.setattr("feinfn.filters.MATMUL_SIDE", 0)
    torch.testing.assert_close(product, filter_bands(x, taps, padding))
