"""Values made in pieces against the formulas of whole images, for any size and number of bands."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from feinfn.metrics.conventions import CONVENTIONS
from feinfn.metrics.evaluation import ALL_INDICES, Comparison, compare, evaluate
from feinfn.metrics.pieces import band_pieces, row_pieces
from feinfn.metrics.windows import box_means, ssim_gaussian, ssim_uniform
from feinfn.protocols.filters import gaussian_taps, ssim_map

SIZES = [(31, 64, 512), (5, 97, 131), (1, 40, 40), (3, 40, 700), (102, 45, 33)]


def images(bands: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    reference = torch.rand(bands, height, width, generator=draw, dtype=torch.float64)
    noise = torch.randn(bands, height, width, generator=draw, dtype=torch.float64)
    return reference + 0.05 * noise, reference


@pytest.mark.parametrize("size", SIZES)
def test_pieces_are_the_image(size):
    both = images(*size)
    for pieces, axis in ((band_pieces(*both), 0), (row_pieces(*both), 1)):
        for parts, whole in zip(zip(*pieces, strict=True), both, strict=True):
            assert torch.equal(torch.cat(parts, dim=axis), whole)
    assert all(len(a) > 1 for a, _ in band_pieces(*both)) or size[0] == 1


@pytest.mark.parametrize("size", SIZES)
def test_pixels_equal_the_formulas_bit_for_bit(size):
    a, b = images(*size)
    mse_S = ((a - b) ** 2).mean(dim=(1, 2))
    one = Comparison(a, b)
    bands = one.per_band()
    assert torch.equal(bands["psnr"], 10 * torch.log10(1 / mse_S))
    assert torch.equal(bands["rmse"], mse_S.sqrt())
    maps = one.maps()
    cosine = (a * b).sum(0) / ((a * a).sum(0) * (b * b).sum(0)).sqrt()
    assert torch.equal(maps["sam_deg"], torch.rad2deg(torch.acos(cosine.clamp(-1, 1))))
    torch.testing.assert_close(maps["error"], (a - b).abs().mean(0), rtol=1e-15, atol=0)


@pytest.mark.parametrize("size", SIZES)
def test_windows_equal_the_formulas(size):
    a, b = images(*size)
    taps = gaussian_taps(11, 1.5)

    def smooth(x: torch.Tensor) -> torch.Tensor:
        for axis in (-2, -1):
            x = x.unfold(axis, 11, 1) @ taps
        return x

    whole = ssim_map(255 * a[None], 255 * b[None], smooth, 255.0)[0].mean(dim=(1, 2))
    torch.testing.assert_close(ssim_gaussian(a, b), whole, rtol=1e-13, atol=0)
    pairs = zip(a.numpy(), b.numpy(), strict=True)
    skimage = [structural_similarity(x, y, data_range=1.0) for x, y in pairs]
    np.testing.assert_allclose(ssim_uniform(a, b), skimage, rtol=1e-12)
    for side in (1, 7, 12, 32):
        windows = a.unfold(1, side, 1).unfold(2, side, 1).mean(dim=(-2, -1))
        torch.testing.assert_close(box_means(a, side), windows, rtol=1e-13, atol=0)


def test_conventions_share_what_they_see_alike():
    a, b = images(4, 64, 64)
    one = Comparison(a.float(), b.float())
    for name in CONVENTIONS:
        one.evaluate(4, name, ALL_INDICES)
    # Whole images, images without their last row and column, and images of 8 bits.
    assert len(one._quantities) == 3
    found = compare(a, b, 8)
    for name in CONVENTIONS:
        alone = evaluate(a, b, 8, name, ALL_INDICES)
        assert found[name] == alone or math.isnan(alone["sam"])
