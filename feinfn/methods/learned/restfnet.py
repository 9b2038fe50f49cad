"""ResTFNet: two encoders, fusion of their features, one decoder (Liu et al., Inf. Fusion 2020).

Features of MSI and LMS are computed separately, joined at half size, reduced once more, and decoded
with skip connections from all scales. Ours: the output is a residual to the LMS, and there is no
batch normalisation, so that an image's result does not depend on its batch.

Legend: B batch, S bands, M MSI bands, C width, h w LR size, H W HR size.
"""

import torch
from torch import Tensor, nn

from feinfn.methods.configs import ResTFNetConfig
from feinfn.methods.feinfn.model import conv3
from feinfn.methods.network import Network


class Residual(nn.Module):
    """A residual block: x + conv3(prelu(conv3(x)))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        middle = [conv3(channels, channels), nn.PReLU(), conv3(channels, channels)]
        self.layers = nn.Sequential(*middle)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.layers(x_BCHW)


def halve(channels_in: int, channels: int) -> nn.Sequential:
    """Return a convolution to half size."""
    return nn.Sequential(nn.Conv2d(channels_in, channels, kernel_size=2, stride=2), nn.PReLU())


def double(channels_in: int, channels: int) -> nn.Sequential:
    """Return a transposed convolution to double size."""
    layer = nn.ConvTranspose2d(channels_in, channels, kernel_size=2, stride=2)
    return nn.Sequential(layer, nn.PReLU())


class ResTFNet(Network):
    """ResTFNet; the LR-HSI enters only through the LMS."""

    name, config_type = "restfnet", ResTFNetConfig
    about = "two encoders of residual blocks and one U-shaped decoder"
    source = "Liu et al., Information Fusion 2020"
    multiple = 4

    def __init__(self, config: ResTFNetConfig) -> None:
        super().__init__(config)
        c = config.width
        # At full and at half size, for MSI and LMS.
        self.heads, self.halves = nn.ModuleList(), nn.ModuleList()
        for channels in (config.msi_bands, config.hsi_bands):
            self.heads.append(nn.Sequential(conv3(channels, c), nn.PReLU(), Residual(c)))
            self.halves.append(halve(c, 2 * c))
        self.fuse = nn.Sequential(Residual(4 * c), Residual(4 * c))
        self.bottom = nn.Sequential(halve(4 * c, 8 * c), Residual(8 * c), double(8 * c, 4 * c))
        self.up = nn.Sequential(
            conv3(8 * c, 4 * c), nn.PReLU(), Residual(4 * c), double(4 * c, 2 * c)
        )
        self.tail = nn.Sequential(Residual(4 * c), conv3(4 * c, config.hsi_bands))

    def residual(self, msi_BMHW: Tensor, lms_BSHW: Tensor, lr_hsi_BShw: Tensor) -> Tensor:
        full = [head(x) for head, x in zip(self.heads, (msi_BMHW, lms_BSHW), strict=True)]
        half = [reduce(x) for reduce, x in zip(self.halves, full, strict=True)]
        fused_BCHW = self.fuse(torch.cat(half, dim=1))
        x_BCHW = self.up(torch.cat([self.bottom(fused_BCHW), fused_BCHW], dim=1))
        return self.tail(torch.cat([x_BCHW, *full], dim=1))
