"""FeINFN: Fourier-enhanced implicit neural fusion network (NeurIPS 2024).

    LR-HSI --spectral encoder--> features --+--> spatial fusion --+
                                            |                     +--> decoder --> + --> HR-HSI
    MSI, LMS --spatial encoder--> guide ----+--> Fourier fusion --+               LMS

LMS is the LR-HSI already upsampled to H x W.

The encoders are those of EDSR without upsampling: head, residual blocks, tail and one long skip.

Legend: B batch, C any channels, S bands, M MSI bands, F features, G guide features, L = S + 1
latent bands, h w LR size, H W HR size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from feinfn.config import ModelConfig
from feinfn.methods.feinfn.decoder import Decoder
from feinfn.methods.feinfn.fourier import FourierFusion
from feinfn.methods.feinfn.geometry import Geometry, sampling_geometry
from feinfn.methods.feinfn.implicit import ImplicitMLP
from feinfn.methods.feinfn.strips import Strips, halo_strips, strips_within
from feinfn.methods.network import Network


def conv3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """Return a 3x3 convolution, stride 1, zero padding 1, with bias."""
    return nn.Conv2d(channels_in, channels_out, kernel_size=3, padding=1)


class ResidualBlock(nn.Module):
    """A residual block: x + conv3(relu(conv3(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3(channels, channels)
        self.conv2 = conv3(channels, channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        # In place, because allocating large tensors costs more than the addition.
        return self.conv2(F.relu(self.conv1(x_BCHW), inplace=True)).add_(x_BCHW)


class Encoder(nn.Module):
    """Encoder from an image [B, C_in, H, W] to a latent code [B, C, H, W]; both ends are linear."""

    def __init__(self, channels_in: int, channels: int, blocks: int) -> None:
        super().__init__()
        self.head = conv3(channels_in, channels)
        self.blocks = nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))
        self.tail = conv3(channels, channels)

        # Every 3x3 convolution reaches one pixel further.
        self.halo = 2 * blocks + 2

    def forward(self, image: Tensor, recompute: bool = False) -> Tensor:
        # Channels-last is faster for 3x3 convolutions, and the pixel-wise networks downstream read
        # it without a copy.
        x_BCHW = self.head(image.contiguous(memory_format=torch.channels_last))
        code_BCHW = x_BCHW
        for block in self.blocks:
            if recompute:
                code_BCHW = checkpoint(block, code_BCHW, use_reentrant=False)
            else:
                code_BCHW = block(code_BCHW)
        return self.tail(code_BCHW).add_(x_BCHW)

    def in_strips(self, image: Tensor, strips: Strips) -> Tensor:
        """Return the latent code; without gradients, in strips of `strips.encoder_rows` rows."""
        height, rows = image.shape[2], strips.encoder_rows
        if torch.is_grad_enabled():
            return self(image, strips.recompute)
        if rows is None or rows >= height:
            return self(image)
        batch, channels, width = len(image), self.head.out_channels, image.shape[3]
        code: Tensor | None = None
        for strip, wide, inner in halo_strips(height, rows, self.halo):
            part = self(image[:, :, wide])[:, :, inner]
            if code is None:
                code = part.new_empty(batch, height, width, channels).movedim(-1, 1)
            code[:, :, strip] = part
        assert code is not None
        return code


HIGH_PASS = {
    # The released kernel's centre is 1, not 4, so it sums to -3.
    "released": [[0.0, -1, 0], [-1, 1, -1], [0, -1, 0]],
    "laplacian": [[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]],
}


class SpatialFusion(nn.Module):
    """Fusion of features, their high-pass and the guide in the image domain."""

    kernel: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        feat = config.feat_dim
        kernel = HIGH_PASS.get(config.high_pass)
        # A buffer moves to the device once, with the model, and not in every forward.
        tensor = None if kernel is None else torch.tensor(kernel)
        self.register_buffer("kernel", tensor, persistent=False)
        parts = [feat] if kernel is None else [feat, feat]
        self.mlp = ImplicitMLP(config, parts, config.guide_dim, config.positional)

    def forward(
        self, feat_BFhw: Tensor, guide_BGHW: Tensor, geometry: Geometry, strips: Strips
    ) -> Tensor:
        """Return the fused latent map [B, H, W, L]."""
        parts = [feat_BFhw.permute(0, 2, 3, 1)]
        if self.kernel is not None:
            channels = feat_BFhw.shape[1]
            kernel = self.kernel.to(feat_BFhw).expand(channels, 1, 3, 3)
            edges_BFhw = F.conv2d(feat_BFhw, kernel, padding=1, groups=channels)
            parts.append(edges_BFhw.permute(0, 2, 3, 1))
        return self.mlp(parts, guide_BGHW.movedim(1, -1), geometry, strips)


class FeINFN(Network):
    """Fusion of an LR-HSI with an MSI of the same scene.

    Inputs are reflectances in [0, 1]; at other scales the decoder's envelopes vanish. The weights
    do not depend on the ratio H/h.

    `memory_mib` bounds the memory of a forward without gradients (see `strips_within`); `recompute`
    saves memory for a quarter more training time. Neither changes a result beyond rounding. Under
    `torch.compile(model, fullgraph=True, dynamic=False)` every pair of sizes is one graph, without
    a base and a projection.
    """

    name, config_type = "feinfn", ModelConfig
    about = "implicit fusion in the image and the Fourier domain"
    source = "FeINFN, NeurIPS 2024"

    def __init__(
        self, config: ModelConfig, memory_mib: float | None = None, recompute: bool = False
    ) -> None:
        super().__init__(config)
        c, self.memory_mib, self.recompute = config, memory_mib, recompute
        self.spatial_encoder = Encoder(c.msi_bands + c.hsi_bands, c.guide_dim, c.spatial_blocks)
        self.spectral_encoder = Encoder(c.hsi_bands, c.feat_dim, c.spectral_blocks)
        self.spatial_fusion = SpatialFusion(c) if c.spatial_branch else None
        self.fourier_fusion = FourierFusion(c) if c.fourier_branch else None
        self.decoder = Decoder(c)

    def residual(
        self, msi_BMHW: Tensor, lms_BSHW: Tensor, lr_hsi_BShw: Tensor, strips: Strips | None = None
    ) -> Tensor:
        """Return the residual [B, S, H, W]; `strips` are chosen by the budget if not given."""
        (h, w), (height, width) = lr_hsi_BShw.shape[-2:], lms_BSHW.shape[-2:]
        sizes = ((h, w), (height, width))
        if strips is None:
            strips = Strips(recompute=self.recompute)
            if self.memory_mib is not None and not torch.is_grad_enabled():
                strips = strips_within(self.memory_mib, self.config, *sizes, len(lms_BSHW))
        guide_BGHW = self.spatial_encoder.in_strips(torch.cat([msi_BMHW, lms_BSHW], dim=1), strips)
        feat_BFhw = self.spectral_encoder(lr_hsi_BShw, strips.recompute)
        rule = "nearest" if self.config.upsampling == "nearest" else self.config.border
        geometry = sampling_geometry(*sizes, rule, lms_BSHW.dtype, lms_BSHW.device)
        branches = (self.spatial_fusion, self.fourier_fusion)
        maps = [b(feat_BFhw, guide_BGHW, geometry, strips) for b in branches if b is not None]
        # With a single branch its map enters twice.
        return self.decoder(maps[0], maps[-1], strips).movedim(-1, 1)
