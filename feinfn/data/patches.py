"""Training patches: aligned windows of whole scenes that were simulated once."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from feinfn.config import DataConfig, ModelConfig
from feinfn.data.source import check_fit, load_scene
from feinfn.errors import UserError
from feinfn.protocols import Pair, Protocol, simulate


def load_pair(
    data: DataConfig, name: str, protocol: Protocol, model: ModelConfig, device: torch.device
) -> tuple[Pair, np.ndarray | None]:
    """Read a scene and simulate its inputs, batch of one; return them with the wavelengths in nm.

    Raises `UserError` where scene, protocol and model do not fit each other.
    """
    scene = load_scene(data, name)
    check_fit(scene.source, scene.raw_SHW.shape, protocol, model)
    cube = torch.from_numpy(scene.cube())[None].to(device)
    pair = simulate(cube, scene.wavelengths_nm, protocol, scene.source)
    return pair, scene.wavelengths_nm


class Patches:
    """All windows of `patch_px` on a grid of `stride_px` in the given scenes, row by row.

    Windows of the simulated inputs are cut from whole-image simulations, so patch borders see the
    same blur and upsampling as the image they come from.
    """

    def __init__(self, pairs: Sequence[Pair], ratio: int, patch_px: int, stride_px: int) -> None:
        for field, value in (("patch_px", patch_px), ("stride_px", stride_px)):
            if value % ratio:
                raise UserError(f"train.{field}: found {value}, expected a multiple of {ratio}")
        self.pairs, self.ratio, self.patch_px = pairs, ratio, patch_px
        self.windows = [
            (scene, top, left)
            for scene, pair in enumerate(pairs)
            for top in range(0, pair.reference_BSHW.shape[-2] - patch_px + 1, stride_px)
            for left in range(0, pair.reference_BSHW.shape[-1] - patch_px + 1, stride_px)
        ]
        if not self.windows:
            sizes = sorted({tuple(p.reference_BSHW.shape[-2:]) for p in pairs})
            raise UserError(
                f"train.patch_px: found {patch_px}, expected at most the size of the training "
                f"scenes {sizes}"
            )

    def __len__(self) -> int:
        return len(self.windows)

    def batch(self, indices: Sequence[int]) -> Pair:
        """Return the windows with these indices as one batch."""
        cuts = [self._cut(*self.windows[i]) for i in indices]
        return Pair(*(torch.cat(tensors) for tensors in zip(*cuts, strict=True)))

    def _cut(self, scene: int, top: int, left: int) -> list[Tensor]:
        pair, hr_rows = self.pairs[scene], self.pairs[scene].reference_BSHW.shape[-2]
        cuts = []
        for field in fields(pair):
            x = getattr(pair, field.name)
            shrink = hr_rows // x.shape[-2]
            y, z, size = top // shrink, left // shrink, self.patch_px // shrink
            cuts.append(x[..., y : y + size, z : z + size])
        return cuts
