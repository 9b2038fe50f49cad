"""Aligned interpolation: LR pixels lie where the protocol samples them."""

import numpy as np
import pytest
import torch

from feinfn.protocols.aligned import aligned
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.simulate import simulate

NM = np.linspace(400, 700, 31)


def interpolated(x_HW: torch.Tensor, protocol: Protocol) -> torch.Tensor:
    pair = simulate(x_HW.expand(2, 31, -1, -1), NM, protocol)
    return aligned(pair.lr_hsi_BShw, protocol)


@pytest.mark.parametrize("protocol", ["cave_x4", "cave_x8", "dhif_x8", "lso_x4", "yokoya_x4"])
def test_ramps_are_kept_inside(protocol):
    rows, cols = torch.arange(64.0).double(), torch.arange(96.0).double()
    ramp_HW = (rows[:, None] + 2 * cols) / 300
    found = interpolated(ramp_HW, PROTOCOLS[protocol])
    assert found.shape == (2, 31, 64, 96)
    inner = (..., slice(24, -24), slice(24, -24))
    torch.testing.assert_close(found[inner], ramp_HW.expand_as(found)[inner])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_flat_images_are_kept_up_to_the_border(dtype):
    flat_HW = torch.full((24, 16), 0.3, dtype=dtype)
    found = interpolated(flat_HW, PROTOCOLS["cave_x4"])
    torch.testing.assert_close(found, flat_HW.expand_as(found))
