"""Implicit networks: from the LR latent code and the HR guide to one latent map at HR size.

Every HR pixel asks its four LR neighbours; a network maps (LR code, guide, offset) of each to L
latent bands and one logit (a vote); the softmax over the four logits blends them. The first linear
layer is linear in its parts, so its LR part is computed on the LR grid, its guide part once per
pixel, and only the sum is made per vote.

Legend: B batch, F features, G guide features, K hidden width, L latent bands, h w LR size,
H W HR size, N = H * W.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.config import ModelConfig
from feinfn.coords import Geometry
from feinfn.errors import UserError
from feinfn.votes import OCTAVES, fuse_votes


class Upsampler(nn.Module):
    """How LR codes reach HR pixels: as the codes of neighbours, or interpolated."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.kind = config.upsampling
        self.ratio = config.shuffle_ratio
        if self.kind == "pixel_shuffle":
            self.expand = nn.Linear(channels, channels * self.ratio**2)

    @staticmethod
    def has_offset(config: ModelConfig) -> bool:
        """Return whether HR pixels ask LR neighbours and know their offset from them."""
        return config.upsampling in ("implicit", "nearest")

    @staticmethod
    def outputs(config: ModelConfig) -> int:
        """Return the channels of one vote: latent bands, and a logit where votes are weighed."""
        return config.latent_bands + (config.upsampling == "implicit")

    def prepare(self, lr_BhwC: Tensor) -> Tensor:
        """Return the LR codes, rearranged by pixel_shuffle (then already at HR size)."""
        if self.kind != "pixel_shuffle":
            return lr_BhwC
        x = F.pixel_shuffle(self.expand(lr_BhwC).permute(0, 3, 1, 2), self.ratio)
        return x.permute(0, 2, 3, 1)

    def interpolate(self, lr_BhwK: Tensor, where: Geometry) -> Tensor:
        """Return the code of every query [Q, K] for the kinds without an offset."""
        size = where.hr_size
        if self.kind == "pixel_shuffle":
            if tuple(lr_BhwK.shape[1:3]) != size:
                raise UserError(
                    f"model.shuffle_ratio: found {self.ratio}, which makes {lr_BhwK.shape[1]}x"
                    f"{lr_BhwK.shape[2]} of the LR-HSI, expected the HR size {size[0]}x{size[1]}"
                )
            return lr_BhwK.flatten(0, 2)
        x = F.interpolate(lr_BhwK.permute(0, 3, 1, 2), size=size, mode=self.kind)
        return x.permute(0, 2, 3, 1).flatten(0, 2)


class ImplicitMLP(nn.Module):
    """The pointwise network of one branch, evaluated for all votes of all pixels.

    `lr` and `hr` give the channels of the LR parts and of the HR part; the released column order
    [lr[0], hr, lr[1:], offset] is kept, so that released weights fit.
    """

    def __init__(
        self, config: ModelConfig, lr: Sequence[int], hr: int, positional: str = "none"
    ) -> None:
        super().__init__()
        self.positional = positional
        self.has_offset = Upsampler.has_offset(config)
        self.upsampler = Upsampler(config, sum(lr))
        offset = 2 + 4 * OCTAVES if positional == "fourier" else 2
        self.columns = [lr[0], hr, *lr[1:], offset * self.has_offset]
        sizes = [sum(self.columns), *config.mlp_widths, Upsampler.outputs(config)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(
        self, lr_BhwC: Sequence[Tensor], hr_BHWG: Tensor, where: Geometry, size: int | None
    ) -> Tensor:
        """Return the fused latent map [B, H, W, L], made in strips of `size` queries."""
        weight, bias = self.layers[0].weight, self.layers[0].bias
        assert isinstance(weight, Tensor)
        w_lr0, w_hr, *w_lr_rest, w_offset = weight.split(self.columns, dim=1)
        w_lr = torch.cat([w_lr0, *w_lr_rest], dim=1)
        # Linear maps commute with picking and interpolating pixels, so this one is made at LR size.
        lr_BhwK = F.linear(self.upsampler.prepare(torch.cat(list(lr_BhwC), dim=-1)), w_lr)
        hidden = [p for layer in self.layers[1:] for p in (layer.weight, layer.bias)]
        batch, hr_QG = len(hr_BHWG), hr_BHWG.flatten(0, 2)
        if self.has_offset:
            picks_QV, offset_QV2 = where.picks(batch), where.offsets(batch)
            if self.positional == "raster":
                offset_QV2 = offset_QV2 + where.raster_N2.repeat(batch, 1)[:, None]
            table_RK = where.table(lr_BhwK)
        else:
            # One vote, whose code lies ready at every query.
            table_RK = self.upsampler.interpolate(lr_BhwK, where)
            picks_QV = torch.arange(len(hr_QG), device=hr_QG.device)[:, None]
            offset_QV2 = hr_QG.new_empty(len(hr_QG), 1, 0)
        layers = [w_hr, bias, *hidden]
        maps = (picks_QV, offset_QV2, hr_QG)
        fused_QL = fuse_votes(*maps, table_RK, w_offset, layers, self.positional, size)
        return fused_QL.view(batch, *where.hr_size, -1)
