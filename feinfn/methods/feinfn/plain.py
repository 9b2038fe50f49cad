"""FeINFN on a blackboard: the readable reference of the released network.

    LR-HSI --spectral encoder--> features --+--> fuse images ---+
                                            |                   +--> decode --> + --> HR-HSI
    MSI, LMS --spatial encoder--> guide ----+--> fuse spectra --+              LMS

`model.py` computes the same, faster and in less memory, and has variants; tests hold it to this
file. Parameters have the same names in both: weights of one load into the other.

Legend: B batch, S bands, M MSI bands, F features, G guide features, L = S + 1 latent bands,
C any channels, h w LR size, H W HR size, 2 (row, column). LMS is the LR-HSI upsampled to H x W.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.errors import require
from feinfn.methods.feinfn.model import FeINFN
from feinfn.protocols.filters import gaussian_taps


class PlainFeINFN(nn.Module):
    """The released network on the parameters of a `FeINFN`, which it shares.

    Raises `UserError` if that is a variant: sizes are free, other choices are not.
    """

    def __init__(self, model: FeINFN) -> None:
        super().__init__()
        for field in fields(model.config):
            value, released = getattr(model.config, field.name), field.default
            if isinstance(released, bool | str) or field.name == "residual_scale":
                require(value == released, f"model.{field.name}", value, f"{released!r} here")
        self.spatial_encoder, self.spectral_encoder = model.spatial_encoder, model.spectral_encoder
        # Any, because torch types what modules hold as `Tensor | Module`.
        self.spatial_fusion: Any = model.spatial_fusion
        self.fourier_fusion: Any = model.fourier_fusion
        self.decoder: Any = model.decoder

    def forward(self, msi_BMHW: Tensor, lms_BSHW: Tensor, lr_hsi_BShw: Tensor) -> Tensor:
        """Return the fused HSI [B, S, H, W], not clipped."""
        guide_BGHW = self.spatial_encoder(torch.cat([msi_BMHW, lms_BSHW], dim=1))
        feat_BFhw = self.spectral_encoder(lr_hsi_BShw)
        spatial_BLHW = self.fuse_images(feat_BFhw, guide_BGHW)
        frequency_BLHW = self.fuse_spectra(feat_BFhw, guide_BGHW)
        return lms_BSHW + self.decode(spatial_BLHW, frequency_BLHW)

    def fuse_images(self, feat_BFhw: Tensor, guide_BGHW: Tensor) -> Tensor:
        """Return the features and their edges fused with the guide, [B, L, H, W]."""
        network = partial(mlp, self.spatial_fusion.mlp.layers)
        lr_maps = [feat_BFhw, high_pass(feat_BFhw)]
        return ask_neighbours(network, lr_maps, guide_BGHW, raster_term(guide_BGHW))

    def fuse_spectra(self, feat_BFhw: Tensor, guide_BGHW: Tensor) -> Tensor:
        """Return the image [B, L, H, W] of a spectrum whose amplitude and phase are fused apart."""
        # Spectra lie on each other as images do: a frequency of the guide, in cycles per HR pixel,
        # asks the features at as many cycles per LR pixel.
        feat, guide = torch.fft.fft2(feat_BFhw), torch.fft.fft2(guide_BGHW)
        network = partial(mlp, self.fourier_fusion.amplitude.layers)
        amplitude_BLHW = ask_neighbours(network, [feat.abs()], guide.abs())
        network = partial(phase_network, self.fourier_fusion.phase.stages)
        phase_BLHW = ask_neighbours(network, [feat.angle()], guide.angle())
        return torch.fft.ifft2(amplitude_BLHW * torch.exp(1j * phase_BLHW)).abs()

    def decode(self, spatial_BLHW: Tensor, frequency_BLHW: Tensor) -> Tensor:
        """Return the residual [B, S, H, W]: in each layer features times Gabor waves."""
        layers = zip(self.decoder.k, self.decoder.q, self.decoder.filters, strict=True)
        q_BCHW = frequency_BLHW
        for i, (key, query, gabor) in enumerate(layers):
            seen_BCHW = torch.cat([q_BCHW, spatial_BLHW], dim=1) if i else spatial_BLHW
            k_BCHW, z_BCHW = F.relu(key(seen_BCHW)), query(q_BCHW)
            wave_BCHW = torch.exp(1j * gabor.omega_0 * z_BCHW - (gabor.scale_0 * z_BCHW) ** 2)
            q_BCHW = (k_BCHW * wave_BCHW).real
        return self.decoder.last(q_BCHW)


def ask_neighbours(
    network: Callable[[Tensor], Tensor],
    lr_maps: Sequence[Tensor],
    hr_BGHW: Tensor,
    raster_HW2: Tensor | float = 0.0,
) -> Tensor:
    """Return what the four LR pixels around every HR pixel make of it, blended, [B, L, H, W].

    The network sees their codes, the HR pixel's and the offset between both, and answers for each
    with L latent bands and a logit; the softmax over the four logits weighs the answers.
    """
    hr_BHWG, here_HW2 = hr_BGHW.movedim(1, -1), centres(hr_BGHW)
    lr_size_2 = torch.tensor(lr_maps[0].shape[-2:]).to(hr_BGHW)
    lr_centres_B2hw = centres(lr_maps[0]).movedim(-1, 0).expand(len(hr_BGHW), -1, -1, -1)
    answers = []
    for side in ([-1, -1], [-1, 1], [1, -1], [1, 1]):
        # Half an LR pixel up or down, and left or right, lies in the neighbour on that side.
        there_HW2 = here_HW2 + torch.tensor(side).to(hr_BGHW) / lr_size_2
        first_BHWC, *others = (pick(lr_map, there_HW2) for lr_map in lr_maps)
        # Released so: outside the grid the code is zero, and so is the centre, that of the image.
        offset_BHW2 = (here_HW2 - pick(lr_centres_B2hw, there_HW2)) * lr_size_2 + raster_HW2
        answers.append(network(torch.cat([first_BHWC, hr_BHWG, *others, offset_BHW2], dim=-1)))
    latent, logit = torch.stack(answers).tensor_split([-1], dim=-1)
    return (latent * logit.softmax(dim=0)).sum(dim=0).movedim(-1, 1)


def mlp(layers: Iterable[Any], x_BHWC: Tensor) -> Tensor:
    """Return what linear layers with relu between make of every pixel's channels."""
    for i, layer in enumerate(layers):
        x_BHWC = layer(F.relu(x_BHWC) if i else x_BHWC)
    return x_BHWC


def phase_network(stages: Iterable[Any], x_BHWC: Tensor) -> Tensor:
    """Return what 1x1 and depthwise 3x3 convolutions in turn make of the map."""
    batch, height, width, _ = x_BHWC.shape
    # Released so: a reshape, not a permutation, so that a "channel" mixes places.
    x_BCHW = x_BHWC.reshape(batch, -1, height, width)
    for i, stage in enumerate(stages):
        x_BCHW = stage.depthwise(stage.pointwise(F.relu(x_BCHW) if i else x_BCHW))
    return x_BCHW.reshape(batch, height, width, -1)


def centres(image_BCHW: Tensor) -> Tensor:
    """Return the pixels' centres [H, W, 2]; any image covers the square [-1, 1] x [-1, 1]."""
    rows, columns = ((2 * torch.arange(n) + 1) / n - 1 for n in image_BCHW.shape[-2:])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1).to(image_BCHW)


def pick(image_BChw: Tensor, points_HW2: Tensor) -> Tensor:
    """Return the pixels nearest to points, [B, H, W, C], zero outside."""
    xy_BHW2 = points_HW2.flip(-1).expand(len(image_BChw), -1, -1, -1)
    return F.grid_sample(image_BChw, xy_BHW2, "nearest", align_corners=False).movedim(1, -1)


def high_pass(x_BChw: Tensor) -> Tensor:
    """Return the edges of every channel."""
    # Released so: a Laplacian would have 4 in the centre.
    kernel = torch.tensor([[0, -1, 0], [-1, 1, -1], [0, -1, 0]]).to(x_BChw)
    channels = x_BChw.shape[1]
    return F.conv2d(x_BChw, kernel.expand(channels, 1, 3, 3), padding=1, groups=channels)


def raster_term(image_BCHW: Tensor) -> Tensor:
    """Return (sin k, cos k), k from 0 to 4095, stretched over the pixels in raster order."""
    height, width = image_BCHW.shape[-2:]
    k = torch.arange(4096).to(image_BCHW)
    table = torch.stack([k.sin(), k.cos()])[None]
    return F.interpolate(table, height * width, mode="linear")[0].T.view(height, width, 2)


def plain_loss(a_BSHW: Tensor, b_BSHW: Tensor) -> Tensor:
    """Return the released training loss, L1 + 0.1 (1 - SSIM), of images in [0, 1]."""
    bands, taps = a_BSHW.shape[1], gaussian_taps(11, 1.5, torch.float32)
    window = torch.outer(taps, taps).to(a_BSHW).expand(bands, 1, 11, 11)
    mean = partial(F.conv2d, weight=window, padding=5, groups=bands)
    a, b = mean(a_BSHW), mean(b_BSHW)
    variances = mean(a_BSHW**2) - a**2 + mean(b_BSHW**2) - b**2
    covariance = mean(a_BSHW * b_BSHW) - a * b
    ssim = (2 * a * b + 1e-4) * (2 * covariance + 9e-4)
    ssim = ssim / ((a**2 + b**2 + 1e-4) * (variances + 9e-4))
    return (a_BSHW - b_BSHW).abs().mean() + 0.1 * (1 - ssim.mean())
