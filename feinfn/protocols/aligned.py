"""Interpolation of LR images from the true places of a protocol's LR pixels.

The LMS instead places LR pixels at the centres of their cells, which most protocols' sampling
misses.

Legend: B batch, S bands, h w LR size, H W HR size.
"""

import numpy as np
import torch
from torch import Tensor

from feinfn.protocols.protocol import Protocol


def aligned(lr_BShw: Tensor, protocol: Protocol) -> Tensor:
    """Return LR images [B, S, h, w] interpolated to HR size, [B, S, H, W], not clipped."""
    height, width = lr_BShw.shape[-2:]
    rows_Hh, cols_Ww = (
        torch.from_numpy(cubic_weights(n, protocol)).to(lr_BShw) for n in (height, width)
    )
    return rows_Hh @ lr_BShw @ cols_Ww.T


def cubic_weights(lr: int, protocol: Protocol) -> np.ndarray:
    """Return the weights [lr * ratio, lr] of cubic convolution (Keys, a = -1/2) along one axis.

    The edge pixel continues the image beyond its border.
    """
    hr = lr * protocol.ratio
    position = (np.arange(hr) - protocol.offset_px) / protocol.ratio
    weights = np.zeros((hr, lr))
    for step in range(-1, 3):
        pick = np.floor(position).astype(int) + step
        distance = np.abs(position - pick)
        inner = (1.5 * distance - 2.5) * distance**2 + 1
        outer = ((2.5 - 0.5 * distance) * distance - 4) * distance + 2
        weight = np.where(distance < 1, inner, np.where(distance < 2, outer, 0.0))
        np.add.at(weights, (np.arange(hr), pick.clip(0, lr - 1)), weight)
    return weights
