"""Where an HR pixel looks in the LR grid: neighbour indices, offsets and the raster-index term.

Pixel centres of an axis with n pixels lie at -1 + (2i + 1)/n. Nothing here depends on data, so the
results are cached by size.

Legend: h w LR size, H W HR size, N = H * W query points in raster order.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TABLE_LENGTH = 4096


def _released_picks(lr: int, hr: int) -> list[np.ndarray]:
    """Return the LR pixel before and after every HR pixel of an axis, -1 where outside."""
    # The picks repeat the released float32 arithmetic (grid_sample's nearest, ties to even) for any
    # dtype and device: for odd ratios the centre pixel of a cell falls exactly on a border and
    # any other arithmetic would choose differently.
    centre = np.float32(-1 + 1 / hr) + np.float32(2 / hr) * np.arange(hr, dtype=np.float32)
    picks = []
    for side in (-1, 1):
        query = centre + np.float32(side / lr)
        pick = np.rint((query + np.float32(1)) * np.float32(lr / 2) - np.float32(0.5)).astype(int)
        picks.append(np.where((pick >= 0) & (pick < lr), pick, -1))
    return picks


def _clamped_picks(lr: int, hr: int) -> list[np.ndarray]:
    """Return the LR pixel before and after every HR pixel, the border pixel where outside."""
    before = ((2 * np.arange(hr) + 1) * lr - hr) // (2 * hr)
    return [np.clip(before, 0, lr - 1), np.clip(before + 1, 0, lr - 1)]


def _nearest_picks(lr: int, hr: int) -> list[np.ndarray]:
    """Return the LR pixel that holds every HR pixel's centre."""
    return [(2 * np.arange(hr) + 1) * lr // (2 * hr)]


_PICKS = {"zero": _released_picks, "clamped": _clamped_picks, "nearest": _nearest_picks}


def _centres(pick: np.ndarray, size: int) -> np.ndarray:
    return (2 * pick + 1) / size - 1


def raster_table() -> Tensor:
    """Return (sin k, cos k) for k = 0..4095, float32 [2, 4096], as released checkpoints hold it."""
    k = torch.arange(TABLE_LENGTH, dtype=torch.float32)
    return torch.stack([k.sin(), k.cos()])


def raster_term(points: int) -> Tensor:
    """Return (sin k, cos k), k = 0..4095, linearly resampled to all raster indices, float64 [N, 2].

    The period in pixels therefore grows with the image: 2 pi pixels along a row at 64x64 only.
    """
    table = raster_table().double()
    if points <= 2:
        return table[:, :points].T.contiguous()
    return F.interpolate(table[None], size=points, mode="linear")[0].T.contiguous()


@dataclass(frozen=True)
class Neighbour:
    """One LR neighbour of every HR pixel.

    `row` [H] and `col` [W] index the LR grid padded by one ring of zeros (0 and h + 1 are outside).
    `offset_HW2` is the distance (row, column) from the neighbour's centre, times (h, w), so that
    neighbouring LR pixels are 2 apart; the centre of a neighbour outside the grid counts as (0, 0),
    as in the released network.
    """

    row: Tensor
    col: Tensor
    offset_HW2: Tensor


@dataclass(frozen=True)
class Geometry:
    """Everything the implicit fusion needs to know about one pair of sizes."""

    neighbours: tuple[Neighbour, ...]
    raster_HW2: Tensor


@lru_cache(maxsize=32)
def geometry(
    lr_size: tuple[int, int],
    hr_size: tuple[int, int],
    rule: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Geometry:
    """Return the sampling geometry from an LR grid (h, w) to an HR grid (H, W).

    `rule`: four neighbours with a zero border (`zero`) or clamped to it (`clamped`), or the one
    LR pixel around the HR centre (`nearest`).
    """
    (h, w), (height, width) = lr_size, hr_size
    y, x = _centres(np.arange(height), height), _centres(np.arange(width), width)
    neighbours = []
    for row in _PICKS[rule](h, height):
        for col in _PICKS[rule](w, width):
            inside = (row >= 0)[:, None] & (col >= 0)
            dy = y[:, None] - np.where(inside, _centres(row, h)[:, None], 0.0)
            dx = x - np.where(inside, _centres(col, w), 0.0)
            offset = torch.tensor(np.stack([dy * h, dx * w], axis=-1), dtype=dtype, device=device)
            row_index, col_index = (torch.tensor(p + 1, device=device) for p in (row, col))
            neighbours.append(Neighbour(row_index, col_index, offset))
    raster = raster_term(height * width).to(dtype=dtype, device=device)
    return Geometry(tuple(neighbours), raster.view(height, width, 2))
