"""Regions: windows of scenes and their turns, and pixels without data."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feinfn.errors import UserError, require


@dataclass(frozen=True)
class Region:
    """A scene or a window of it; rows and columns are (start, stop), None for all."""

    scene: str
    rows: tuple[int, int] | None = None
    cols: tuple[int, int] | None = None

    @classmethod
    def parse(cls, text: str, field: str) -> "Region":
        """Read `scene` or `scene[top:bottom, left:right]`; raise `UserError` naming the field."""
        match = re.fullmatch(r"([^\[\]]+)(?:\[(\d+):(\d+), ?(\d+):(\d+)\])?", text)
        expected = "a scene, or a window such as scene[0:64, 0:128]"
        if match is None:
            raise UserError(f"found {text!r}, expected {expected}", field)
        if match[2] is None:
            return cls(match[1])
        top, bottom, left, right = (int(match[i]) for i in (2, 3, 4, 5))
        require(top < bottom and left < right, field, text, f"{expected} that is not empty")
        return cls(match[1], (top, bottom), (left, right))

    def overlaps(self, other: "Region") -> bool:
        """Return True if the two regions share a pixel."""
        if self.scene != other.scene:
            return False
        pairs = ((self.rows, other.rows), (self.cols, other.cols))
        return all(a is None or b is None or (a[0] < b[1] and b[0] < a[1]) for a, b in pairs)

    def __str__(self) -> str:
        if self.rows is None or self.cols is None:
            return self.scene
        return f"{self.scene}[{self.rows[0]}:{self.rows[1]}, {self.cols[0]}:{self.cols[1]}]"


def largest_window(valid_HW: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return rows and columns [first, last) of the largest rectangle that is True everywhere.

    Of equal ones it is the first from above. The mask has a True pixel.
    """
    best, found = 0, ((0, 0), (0, 0))
    heights = np.zeros(valid_HW.shape[1], dtype=int)
    for row, valid in enumerate(valid_HW):
        heights = np.where(valid, heights + 1, 0)
        # Columns whose bars rise from left to right; each starts where its height began.
        bars: list[tuple[int, int]] = []
        for column, height in enumerate([*heights.tolist(), 0]):
            start = column
            while bars and bars[-1][1] >= height:
                start, top = bars.pop()
                if (area := top * (column - start)) > best:
                    best, found = area, ((row + 1 - top, row + 1), (start, column))
            bars.append((start, height))
    return found


def in_all(*masks_HW: np.ndarray | None) -> np.ndarray | None:
    """Return the pixels with data in every mask; None, which stands for all, if none is given."""
    given = [mask for mask in masks_HW if mask is not None]
    return np.logical_and.reduce(given) if given else None


def fused_valid(
    msi_valid_HW: np.ndarray | None, lr_valid_hw: np.ndarray | None, size_HW: Sequence[int]
) -> np.ndarray | None:
    """Return the pixels [H, W] of a fused image with data; None, for each image, stands for all.

    They are the pixels with data of the MSI that lie on the ground of an LR pixel with data.
    """
    if lr_valid_hw is None:
        return msi_valid_HW
    ratio = size_HW[0] // lr_valid_hw.shape[0]
    return in_all(msi_valid_HW, lr_valid_hw.repeat(ratio, axis=0).repeat(ratio, axis=1))


def filled(values_SHW: np.ndarray, valid_HW: np.ndarray | None) -> np.ndarray:
    """Return values with those of the nearest pixel with data in pixels without."""
    if valid_HW is None:
        return values_SHW
    from scipy.ndimage import distance_transform_edt

    rows, columns = distance_transform_edt(~valid_HW, return_distances=False, return_indices=True)
    return np.ascontiguousarray(values_SHW[:, rows, columns])


TURNS = 8
"""Number of ways to turn and mirror a square."""


def turned(x: np.ndarray, turn: int) -> np.ndarray:
    """Return [..., H, W] mirrored (bit 1 of `turn`), flipped (bit 2) and transposed (bit 4)."""
    x = x[..., ::-1] if turn & 1 else x
    x = x[..., ::-1, :] if turn & 2 else x
    return x.swapaxes(-1, -2) if turn & 4 else x


def turned_corner(
    corner: tuple[int, int], size_HW: tuple[int, ...], side: int, turn: int
) -> tuple[int, int]:
    """Return the top left corner of a square in an image that `turned` turned."""
    top, left = corner
    if turn & 1:
        left = size_HW[1] - side - left
    if turn & 2:
        top = size_HW[0] - side - top
    return (left, top) if turn & 4 else (top, left)
