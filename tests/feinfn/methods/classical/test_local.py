"""Local regression: exact for one affine map, global in the limit, better the slower gains vary."""

import numpy as np
import pytest
import torch

from feinfn.methods.classical import local
from feinfn.methods.classical.problem import Problem
from feinfn.methods.classical.registry import CLASSICAL
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.simulate import simulate

NM = np.linspace(400, 700, 31)


def made(x_SHW: np.ndarray, protocol: Protocol) -> Problem:
    pair = simulate(torch.from_numpy(x_SHW)[None], NM, protocol)
    return Problem(pair.lr_hsi_BShw[0].numpy(), pair.msi_BMHW[0].numpy(), protocol, NM)


def scene(size: tuple[int, int], cycles: float) -> np.ndarray:
    """Return three rough abundances times spectra that change over the image, [31, H, W].

    `cycles` is how often the spectra change back and forth across the image; 0 keeps them.
    """
    rng = np.random.default_rng(0)
    amounts_KHW = rng.dirichlet(np.ones(3), size).transpose(2, 0, 1)
    first_SK, second_SK = rng.uniform(0.1, 0.5, (2, 31, 3))
    rows, cols = (np.arange(n) / n for n in size)
    share_HW = 0.5 + 0.5 * np.sin(2 * np.pi * cycles * (rows[:, None] + cols))
    fixed_SHW, changed_SHW = (np.tensordot(x, amounts_KHW, 1) for x in (first_SK, second_SK))
    return fixed_SHW + share_HW * (changed_SHW - fixed_SHW)


@pytest.mark.parametrize("protocol", ["cave_x4", "cave_x8", "dhif_x8", "lso_x4", "yokoya_x4"])
def test_one_affine_map_is_found_exactly(protocol):
    chosen, x_SHW = PROTOCOLS[protocol], scene((48, 64), 0)
    given = made(x_SHW, chosen)
    fused = CLASSICAL["local"].fuse(given.lr_hsi_Shw, given.msi_MHW, chosen)
    assert np.abs(fused - x_SHW).max() < 1e-6


def test_a_wide_window_is_the_global_regression():
    given = made(scene((48, 64), 2), PROTOCOLS["cave_x4"])
    gains_SM, constants_S = given.prediction
    distances = []
    for sigma_lr_px in (3, 30, 300, 3e4):
        found_SMhw, base_Shw = local.regression(given, sigma_lr_px)
        distance = np.abs(found_SMhw - gains_SM[..., None, None]).max()
        distances.append(distance + np.abs(base_Shw - constants_S[:, None, None]).max())
    assert distances == sorted(distances, reverse=True)
    assert distances[0] > 0.1
    assert distances[-1] < 1e-6


def test_gains_that_vary_more_slowly_are_followed_better():
    errors = []
    for cycles in (4, 2, 1, 0.5, 0.25):
        x_SHW = scene((96, 96), cycles)
        errors.append(np.square(local.solve(made(x_SHW, PROTOCOLS["cave_x4"])) - x_SHW).mean())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] / 30


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_flat_regions_are_kept(value):
    x_SHW = scene((48, 64), 1)
    x_SHW[:, :, 24:] = value
    fused = local.solve(made(x_SHW, PROTOCOLS["cave_x4"]))
    assert np.isfinite(fused).all()
    assert np.abs(fused[:, :, 48:] - value).max() < 1e-3
