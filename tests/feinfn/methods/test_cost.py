"""Parameters and operations by module, and equal parameter counts."""

import pytest
from networks import NARROW

from feinfn.config import ModelConfig
from feinfn.errors import UserError
from feinfn.methods.cost import costs, match_parameters, parameters_of


def test_operations_of_the_released_network_by_hand():
    found = {one.module: one for one in costs(ModelConfig(), ratio=4)}
    lr = 1 / 16  # LR pixels per HR pixel.
    guide, feat, latent = 128, 128, 32
    blocks = 9 * 9 * guide * guide
    # The first layer is split: its LR part is made at LR size, its guide part once for four votes.
    hidden = 256 * 128 + 128 * (latent + 1)
    votes = guide * 256 + 4 * (2 * 256 + hidden)
    phase = 4 * ((feat + guide + 2) * 256 + hidden + 9 * (256 + 128 + latent + 1))
    expected = {
        "FeINFN.spatial_encoder": 9 * 34 * guide + blocks,
        "FeINFN.spectral_encoder": lr * (9 * 31 * feat + blocks),
        "FeINFN.fourier_fusion.amplitude": lr * feat * 256 + votes,
        "FeINFN.fourier_fusion.phase": phase,
        "FeINFN.spatial_fusion.mlp": lr * 2 * feat * 256 + votes,
        "FeINFN.decoder": latent * 128 * 2 + 2 * (128 + latent + 128) * 128 + 128 * 31,
    }
    for module, multiply_adds in expected.items():
        assert found[module].flop_per_pixel == pytest.approx(2 * multiply_adds, rel=1e-9), module
    assert found["FeINFN"].parameters == 3_164_816
    top = [one for name, one in found.items() if name.count(".") == 1]
    assert sum(one.parameters for one in top) == found["FeINFN"].parameters


@pytest.mark.parametrize("target", [30_000, 297_392, 3_164_816])
def test_width_for_an_equal_count_is_the_nearest(target):
    config = ModelConfig(fourier_branch=False, mlp_widths=(64, 32), decoder_width=32)
    found = match_parameters(config, target)
    distance = abs(parameters_of(found) - target)
    for step in (-1, 1):
        width = found.feat_dim + step
        other = ModelConfig(
            fourier_branch=False,
            mlp_widths=(64, 32),
            decoder_width=32,
            feat_dim=width,
            guide_dim=width,
        )
        assert distance <= abs(parameters_of(other) - target)
    assert found.feat_dim == found.guide_dim


def test_unreachable_count_is_refused():
    with pytest.raises(UserError, match=r"match_parameters: found a target of 10 parameters"):
        match_parameters(NARROW, 10)
