"""Geometry: the LR pixels that each HR pixel looks at, as indices and offsets.

Pixel centres of an axis with n pixels lie at -1 + (2i + 1)/n. Nothing here depends on the images'
values, so results are cached by size.

Legend: h w LR size, H W HR size, N = H * W query points in raster order, V neighbours of a query, B
batch, K channels, R = B (h + 2) (w + 2) rows of the padded table.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

TABLE_LENGTH = 4096
"""Entries of the released table of sin k and cos k."""


def _released_picks(lr: int, hr: int) -> list[np.ndarray]:
    """Return the LR pixels before and after every HR pixel of an axis; -1 if outside the grid."""
    # Same float32 arithmetic as the released code (grid_sample's nearest, ties to even), for any
    # dtype and device: at odd ratios the middle pixel of a cell lies exactly on a border, and other
    # arithmetic would choose differently.
    centre = np.float32(-1 + 1 / hr) + np.float32(2 / hr) * np.arange(hr, dtype=np.float32)
    picks = []
    for side in (-1, 1):
        query = centre + np.float32(side / lr)
        pick = np.rint((query + np.float32(1)) * np.float32(lr / 2) - np.float32(0.5)).astype(int)
        picks.append(np.where((pick >= 0) & (pick < lr), pick, -1))
    return picks


def _clamped_picks(lr: int, hr: int) -> list[np.ndarray]:
    """Return the LR pixels before and after every HR pixel, clamped to the grid."""
    before = ((2 * np.arange(hr) + 1) * lr - hr) // (2 * hr)
    return [np.clip(before, 0, lr - 1), np.clip(before + 1, 0, lr - 1)]


def _nearest_picks(lr: int, hr: int) -> list[np.ndarray]:
    """Return the LR pixel that contains the centre of every HR pixel."""
    return [(2 * np.arange(hr) + 1) * lr // (2 * hr)]


_PICKS = {"zero": _released_picks, "clamped": _clamped_picks, "nearest": _nearest_picks}


def _centres(pick: np.ndarray, size: int) -> np.ndarray:
    return (2 * pick + 1) / size - 1


def raster_table() -> Tensor:
    """Return (sin k, cos k) for k = 0 ... 4095, float32 [2, 4096], as in released checkpoints."""
    k = torch.arange(TABLE_LENGTH, dtype=torch.float32)
    return torch.stack([k.sin(), k.cos()])


def raster_term(points: int) -> Tensor:
    """Return (sin k, cos k), k = 0 ... 4095, resampled to all raster indices, float64 [N, 2].

    Resampling is linear, so the period in pixels grows with the image: it is 2 pi pixels along a
    row only at 64x64.
    """
    table = raster_table().double()
    if points <= 2:
        return table[:, :points].T.contiguous()
    return F.interpolate(table[None], size=points, mode="linear")[0].T.contiguous()


@dataclass(frozen=True)
class Geometry:
    """Places of the V neighbours of every HR pixel.

    `picks_NV` are raster indices into the LR grid padded by one ring of zeros, (h + 2) x (w + 2).
    `offset_NV2` are the distances (row, column) from the neighbours' centres, times (h, w), so that
    adjacent LR pixels are 2 apart; the centre of a neighbour outside the grid counts as (0, 0), as
    in the released network. `raster_N2` is the raster-index term.
    """

    lr_size: tuple[int, int]
    hr_size: tuple[int, int]
    picks_NV: Tensor
    offset_NV2: Tensor
    raster_N2: Tensor

    def table(self, lr_BhwK: Tensor) -> Tensor:
        """Return the padded LR maps of a batch as the rows of one table [R, K]."""
        return F.pad(lr_BhwK, (0, 0, 1, 1, 1, 1)).flatten(0, 2)

    def picks(self, batch: int) -> Tensor:
        """Return the row of `table` for every query and neighbour of a batch, [B N, V]."""
        if batch == 1:
            return self.picks_NV
        rows = (self.lr_size[0] + 2) * (self.lr_size[1] + 2)
        first = torch.arange(batch, device=self.picks_NV.device) * rows
        return (first[:, None, None] + self.picks_NV).flatten(0, 1)

    def offsets(self, batch: int) -> Tensor:
        """Return the offset for every query and neighbour of a batch, [B N, V, 2]."""
        return self.offset_NV2.expand(batch, -1, -1, -1).flatten(0, 1)


@lru_cache(maxsize=8)
def _cached_tables(
    lr_size: tuple[int, int],
    hr_size: tuple[int, int],
    rule: str,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Tensor, Tensor, Tensor]:
    (h, w), (height, width) = lr_size, hr_size
    y, x = _centres(np.arange(height), height), _centres(np.arange(width), width)
    picks, offsets = [], []
    for row in _PICKS[rule](h, height):
        for col in _PICKS[rule](w, width):
            inside = (row >= 0)[:, None] & (col >= 0)
            dy = y[:, None] - np.where(inside, _centres(row, h)[:, None], 0.0)
            dx = x - np.where(inside, _centres(col, w), 0.0)
            picks.append(((row + 1)[:, None] * (w + 2) + col + 1).ravel())
            offsets.append(np.stack([dy * h, dx * w], axis=-1).reshape(-1, 2))
    # A cached tensor made in inference mode could not be used in a later training step.
    with torch.inference_mode(False):
        return (
            torch.tensor(np.stack(picks, axis=1), device=device),
            torch.tensor(np.stack(offsets, axis=1), dtype=dtype, device=device),
            raster_term(height * width).to(dtype=dtype, device=device),
        )


def _tables(*key: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _cached_tables(*key)


# The attribute that `torch.compiler.assume_constant_result` sets. That function would import the
# whole compiler, which takes every command a second.
_tables._dynamo_marked_constant = True  # type: ignore[attr-defined]


def sampling_geometry(
    lr_size: tuple[int, int],
    hr_size: tuple[int, int],
    rule: str,
    dtype: torch.dtype,
    device: torch.device,
) -> Geometry:
    """Return the geometry of sampling from an LR grid (h, w) to an HR grid (H, W).

    `rule` is `zero` (four neighbours, zeros outside the grid), `clamped` (four neighbours, clamped
    to the grid) or `nearest` (the one LR pixel around the HR centre). The last sizes are cached; a
    network compiled for one size (`dynamic=False`) holds them as constants.
    """
    return Geometry(lr_size, hr_size, *_tables(lr_size, hr_size, rule, dtype, device))


OCTAVES = 2
"""Octaves of the Fourier features of an offset."""


def offset_features(offset_HW2: Tensor, positional: str) -> Tensor:
    """Return the offset (row, column), with its sines and cosines if `positional` is fourier."""
    if positional != "fourier":
        return offset_HW2
    waves = [offset_HW2 * (torch.pi / 2 * 2**k) for k in range(OCTAVES)]
    return torch.cat([offset_HW2, *(f(w) for w in waves for f in (torch.sin, torch.cos))], dim=-1)
