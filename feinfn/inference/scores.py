"""Scores of a fused image's file against its reference's file, under named conventions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from feinfn.data.images import read_cube
from feinfn.errors import UserError
from feinfn.inference.grids import on_the_same_ground
from feinfn.inference.inputs import ImageFile, sharing_scale
from feinfn.metrics.conventions import CONVENTIONS, Convention, find_convention
from feinfn.metrics.evaluation import ALL_INDICES, Comparison, left_out_words, smallest_px
from feinfn.region import in_all


@dataclass(frozen=True)
class FileScores:
    """Indices of one pair of images, [S, H, W]."""

    fused: np.ndarray
    reference: np.ndarray
    notes: tuple[str, ...]
    """Facts of the files that were used, one sentence each."""
    conventions: tuple[Convention, ...]
    comparison: Comparison
    values: dict[str, dict[str, float]]
    """Index values by convention."""
    valid: np.ndarray | None = None
    """False for pixels without data in either image, [H, W]; None if there are none."""

    @property
    def left_out(self) -> list[str]:
        """Indices whose windows are larger than the images."""
        computed = next(iter(self.values.values()))
        return [index for index in ALL_INDICES if index not in computed]

    def gaps(self) -> str:
        """Return a sentence about pixels without data and the windows that touch them, or none."""
        if self.valid is None:
            return ""
        return left_out_words(torch.from_numpy(self.valid), list(next(iter(self.values.values()))))

    def maps(self) -> dict[str, torch.Tensor]:
        """Return `error` and `sam_deg`, both [H, W], under the first convention."""
        return self.comparison.maps(self.conventions[0].name)


def _double(cube_SHW: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(cube_SHW, dtype=np.float64))


def score_files(
    fused: ImageFile, reference: ImageFile, ratio: int, conventions: Sequence[str] = ()
) -> FileScores:
    """Score a fused image under some conventions (all by default), in float64.

    `ratio` is that of the protocol, for ERGAS. The reference takes the full scale of a fused image
    of the same integer type; if both files say where they lie, it is turned as the fused image
    lies. Pixels without data in either image are left out. Raises `UserError` for files that cannot
    be read, integers of unknown scale, another place, shapes that differ, and unknown conventions.
    """
    names = list(dict.fromkeys(conventions or CONVENTIONS))
    rules = tuple(find_convention(name) for name in names)
    first = read_cube(*fused)
    images = [first, on_the_same_ground(read_cube(*sharing_scale(reference, fused)), first)]
    sr, gt = (image.values_SHW for image in images)
    notes = tuple(f"{image.path}: {note}" for image in images for note in image.notes)
    if sr.shape != gt.shape:
        raise UserError(
            f"{fused[0]}: found shape {sr.shape} [bands, rows, columns], expected {gt.shape}, that "
            f"of {reference[0]}; axes are [rows, columns, bands] in .mat files alone, otherwise "
            "name the axis of the bands (--bands-axis)"
        )
    side = min(gt.shape[1:])
    least = {index: max(smallest_px(index, name) for name in names) for index in ALL_INDICES}
    indices = [index for index, px in least.items() if px <= side]
    valid = in_all(*(image.valid_HW for image in images))
    mask = None if valid is None else torch.from_numpy(valid)
    comparison = Comparison(_double(sr), _double(gt), mask)
    values = {name: comparison.evaluate(ratio, name, indices) for name in names}
    return FileScores(sr, gt, notes, rules, comparison, values, valid)
