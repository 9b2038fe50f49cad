"""Implicit fusion of the LR latent code with the HR guide, in space and in the Fourier domain.

Every HR pixel asks its four LR neighbours; a network maps (LR code, guide, offset) of each to L
latent bands and one logit; the softmax over the four logits blends them. A neighbour outside the
LR grid has zero code. The first linear layer is linear in its parts, so its LR part is computed on
the LR grid, its guide part once per pixel, and only the sum is made per neighbour.

Legend: B batch, F features, G guide features, K hidden width, L latent bands, h w LR size,
H W HR size, N = H * W.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.coords import Geometry, Neighbour


def gather(padded_BhwK: Tensor, at: Neighbour) -> Tensor:
    """Return each pixel's neighbour from a grid that carries a ring of zeros, [B, H, W, K]."""
    return padded_BhwK[:, at.row][:, :, at.col]


def pad_ring(x_BhwK: Tensor) -> Tensor:
    """Return the grid with one ring of zeros around it, [B, h + 2, w + 2, K]."""
    return F.pad(x_BhwK, (0, 0, 1, 1, 1, 1))


def blend(votes: Sequence[Tensor]) -> Tensor:
    """Return the softmax-weighted mean of four [..., L + 1] votes whose last entry is the logit."""
    stacked = torch.stack(list(votes))
    weight = torch.softmax(stacked[..., -1:], dim=0)
    return (weight * stacked[..., :-1]).sum(dim=0)


class ImplicitMLP(nn.Module):
    """The pointwise network of one implicit branch, evaluated for all neighbours of all pixels.

    `lr` and `hr` give the channels of the LR parts and of the HR part; the released column order
    [lr[0], hr, lr[1:], offset] is kept, so that released weights fit.
    """

    def __init__(self, lr: Sequence[int], hr: int, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.columns = [lr[0], hr, *lr[1:], 2]
        sizes = [sum(self.columns), *widths, latent + 1]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(
        self, lr_BhwC: Sequence[Tensor], hr_BHWG: Tensor, geometry: Geometry, raster: bool
    ) -> Tensor:
        """Return the blended latent map [B, H, W, L]; `raster` adds the raster-index term."""
        weight, bias = self.layers[0].weight, self.layers[0].bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        w_lr0, w_hr, *w_lr_rest, w_offset = weight.split(self.columns, dim=1)
        w_lr = torch.cat([w_lr0, *w_lr_rest], dim=1)
        lr_BhwK = pad_ring(F.linear(torch.cat(list(lr_BhwC), dim=-1), w_lr))
        hr_BHWK = F.linear(hr_BHWG, w_hr, bias)
        if raster:
            hr_BHWK = hr_BHWK + F.linear(geometry.raster_HW2, w_offset)
        votes = []
        for at in geometry.neighbours:
            x = hr_BHWK + gather(lr_BhwK, at) + F.linear(at.offset_HW2, w_offset)
            for layer in self.layers[1:]:
                x = layer(F.relu(x))
            votes.append(x)
        return blend(votes)


class SpatialFusion(nn.Module):
    """Implicit fusion of features, guide and the features' high-pass in the image domain."""

    high_pass: Tensor

    def __init__(self, feat: int, guide: int, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.mlp = ImplicitMLP([feat, feat], guide, widths, latent)
        # The released kernel: its centre is 1, not 4, so it sums to -3.
        kernel = torch.tensor([[0.0, -1, 0], [-1, 1, -1], [0, -1, 0]])
        self.register_buffer("high_pass", kernel, persistent=False)

    def forward(self, feat_BFhw: Tensor, guide_BGHW: Tensor, geometry: Geometry) -> Tensor:
        """Return the fused latent map [B, L, H, W]."""
        channels = feat_BFhw.shape[1]
        kernel = self.high_pass.to(feat_BFhw.dtype).expand(channels, 1, 3, 3)
        edges_BFhw = F.conv2d(feat_BFhw, kernel, padding=1, groups=channels)
        parts = [feat_BFhw.permute(0, 2, 3, 1), edges_BFhw.permute(0, 2, 3, 1)]
        fused = self.mlp(parts, guide_BGHW.permute(0, 2, 3, 1), geometry, raster=True)
        return fused.permute(0, 3, 1, 2)


class PhaseStage(nn.Module):
    """A 1x1 convolution, then a depthwise 3x3 one, both without bias."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.depthwise = nn.Conv2d(
            channels_out, channels_out, 3, padding=1, groups=channels_out, bias=False
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.depthwise(self.pointwise(x))


class PhaseNetwork(nn.Module):
    """The released phase network: its input [B, N, F+G+2] is re-viewed as [B, F+G+2, H, W].

    The re-view is not a permutation: a "channel" mixes positions. Released weights were trained
    with it, so it stays.
    """

    def __init__(self, feat: int, guide: int, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        sizes = [feat + guide + 2, *widths, latent + 1]
        self.stages = nn.ModuleList(PhaseStage(a, b) for a, b in pairwise(sizes))

    def forward(self, feat_BhwF: Tensor, guide_BHWG: Tensor, geometry: Geometry) -> Tensor:
        """Return the blended phase map [B, H, W, L] in radians."""
        padded = pad_ring(feat_BhwF)
        batch, height, width, _ = guide_BHWG.shape
        votes = []
        for at in geometry.neighbours:
            offset_BHW2 = at.offset_HW2.expand(batch, -1, -1, -1)
            x = torch.cat([gather(padded, at), guide_BHWG, offset_BHW2], dim=-1)
            x = x.view(batch, -1, height, width)
            for i, stage in enumerate(self.stages):
                x = stage(F.relu(x) if i else x)
            votes.append(x.reshape(batch, height, width, -1))
        return blend(votes)


class FourierFusion(nn.Module):
    """Implicit fusion of amplitude and phase, then the modulus of the inverse transform."""

    def __init__(self, feat: int, guide: int, widths: Sequence[int], latent: int) -> None:
        super().__init__()
        self.amplitude = ImplicitMLP([feat], guide, widths, latent)
        self.phase = PhaseNetwork(feat, guide, widths, latent)

    def forward(self, feat_BFhw: Tensor, guide_BGHW: Tensor, geometry: Geometry) -> Tensor:
        """Return the fused latent map [B, L, H, W], >= 0."""
        feat, guide = torch.fft.fft2(feat_BFhw), torch.fft.fft2(guide_BGHW)
        feat, guide = feat.permute(0, 2, 3, 1), guide.permute(0, 2, 3, 1)
        amplitude = self.amplitude([feat.abs()], guide.abs(), geometry, raster=False)
        phase = self.phase(feat.angle(), guide.angle(), geometry)
        spectrum = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
        return torch.fft.ifft2(spectrum.permute(0, 3, 1, 2)).abs()
