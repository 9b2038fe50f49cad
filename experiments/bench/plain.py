"""FeINFN as a plain transcription of the released computation, to be measured against.

Straightforward on purpose: grid_sample for everything, concatenation, one pass of every network per
neighbour, a high-pass and a table per neighbour, complex exponentials, a grouped SSIM convolution.
Parameters are borrowed from our model, so both compute the same function.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.methods.feinfn.model import FeINFN
from feinfn.protocols.filters import gaussian_taps


def centres(height: int, width: int, like: Tensor) -> Tensor:
    """Return pixel centres (row, column) in [-1, 1], [H, W, 2]."""
    rows = (2 * torch.arange(height, dtype=like.dtype) + 1) / height - 1
    cols = (2 * torch.arange(width, dtype=like.dtype) + 1) / width - 1
    return torch.stack(torch.meshgrid(rows, cols, indexing="ij"), dim=-1).to(like.device)


def sample(image: Tensor, points_BN2: Tensor) -> Tensor:
    """Return the nearest pixel at (row, column) points, zero outside, [B, N, C]."""
    grid = points_BN2.flip(-1).unsqueeze(1)
    picked = F.grid_sample(image, grid, mode="nearest", align_corners=False)
    return picked[:, :, 0].permute(0, 2, 1)


class PlainFeINFN(nn.Module):
    """The released forward, on the parameters of one of our models."""

    def __init__(self, model: FeINFN) -> None:
        super().__init__()
        self.model = model

    def _votes(self, feat: Tensor, guide: Tensor, kind: str) -> Tensor:
        batch, _, h, w = feat.shape
        height, width = guide.shape[-2:]
        points = centres(height, width, feat).view(1, -1, 2).expand(batch, -1, -1)
        feat_centres = centres(h, w, feat).permute(2, 0, 1)[None].expand(batch, -1, -1, -1)
        hr = sample(guide, points)
        scale = torch.tensor([h, w], dtype=feat.dtype, device=feat.device)
        votes = []
        for vy in (-1, 1):
            for vx in (-1, 1):
                shift = torch.tensor([vy / h, vx / w], dtype=feat.dtype, device=feat.device)
                at = points + shift
                lr = sample(feat, at)
                offset = (points - sample(feat_centres, at)) * scale
                if kind == "spatial":
                    channels = feat.shape[1]
                    kernel = self.model.spatial_fusion.kernel.to(feat).expand(channels, 1, 3, 3)
                    edges = sample(F.conv2d(feat, kernel, padding=1, groups=channels), at)
                    k = torch.arange(4096, dtype=feat.dtype, device=feat.device)
                    table = torch.stack([k.sin(), k.cos()])[None]
                    raster = F.interpolate(table, size=height * width, mode="linear")
                    x = torch.cat([lr, hr, edges, offset + raster.permute(0, 2, 1)], dim=-1)
                    votes.append(self._mlp(self.model.spatial_fusion.mlp.layers, x))
                elif kind == "amplitude":
                    x = torch.cat([lr, hr, offset], dim=-1)
                    votes.append(self._mlp(self.model.fourier_fusion.amplitude.layers, x))
                else:
                    x = torch.cat([lr, hr, offset], dim=-1).view(batch, -1, height, width)
                    for i, stage in enumerate(self.model.fourier_fusion.phase.stages):
                        x = stage.depthwise(stage.pointwise(F.relu(x) if i else x))
                    votes.append(x.view(batch, height * width, -1))
        stacked = torch.stack(votes, dim=-1)
        weight = F.softmax(stacked[:, :, -1:], dim=-1)
        fused = (stacked[:, :, :-1] * weight).sum(-1)
        return fused.permute(0, 2, 1).reshape(batch, -1, height, width)

    @staticmethod
    def _mlp(layers: nn.ModuleList, x: Tensor) -> Tensor:
        for i, layer in enumerate(layers):
            x = layer(F.relu(x) if i else x)
        return x

    def forward(self, msi: Tensor, lms: Tensor, lr_hsi: Tensor) -> Tensor:
        """Return the fused HSI, as `FeINFN.forward` does."""
        model = self.model
        guide = model.spatial_encoder(torch.cat([msi, lms], dim=1))
        feat = model.spectral_encoder(lr_hsi)
        feat_spectrum, guide_spectrum = torch.fft.fft2(feat), torch.fft.fft2(guide)
        amplitude = self._votes(feat_spectrum.abs(), guide_spectrum.abs(), "amplitude")
        phase = self._votes(feat_spectrum.angle(), guide_spectrum.angle(), "phase")
        spectrum = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
        q = torch.fft.ifft2(spectrum).abs()
        spatial = self._votes(feat, guide, "spatial")
        decoder = model.decoder
        for i, (key, query, gabor) in enumerate(
            zip(decoder.k, decoder.q, decoder.filters, strict=True)
        ):
            k = F.relu(key(spatial if i == 0 else torch.cat([q, spatial], dim=1)))
            z = query(q)
            q = (k * torch.exp(1j * gabor.omega_0 * z - (gabor.scale_0 * z) ** 2)).real
        return lms + decoder.last(q)


def plain_loss(fused: Tensor, reference: Tensor) -> Tensor:
    """Return L1 + 0.1 (1 - SSIM) by grouped 11x11 convolutions."""
    taps = gaussian_taps(11, 1.5, torch.float32)
    bands = fused.shape[1]
    window = torch.outer(taps, taps).to(fused).expand(bands, 1, 11, 11)

    def smooth(x: Tensor) -> Tensor:
        return F.conv2d(x, window, padding=5, groups=bands)

    a, b = smooth(fused), smooth(reference)
    var_a, var_b = smooth(fused * fused) - a * a, smooth(reference * reference) - b * b
    cov = smooth(fused * reference) - a * b
    ssim = (2 * a * b + 1e-4) * (2 * cov + 9e-4) / ((a * a + b * b + 1e-4) * (var_a + var_b + 9e-4))
    return (fused - reference).abs().mean() + 0.1 * (1 - ssim.mean())
