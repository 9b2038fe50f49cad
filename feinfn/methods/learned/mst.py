"""A U-shaped transformer with attention between channels, after MST (Cai et al., CVPR 2022).

In spectral-wise attention every channel is one token, as long as the image has pixels, so that the
cost is linear in pixels and distant places are related through the channels' similarities. MST
reconstructs spectra from coded snapshots. Ours is a fusion network on that idea and equals no
released one: MSI and LMS enter together, the output is a residual to the LMS, both halves of a
block are normalised first, and depths and widths give FeINFN's number of parameters. Attention sees
the whole image, so fusing an image in tiles gives another result.

Legend: B batch, S bands, M MSI bands, C channels, D channels of a head, h w LR size, H W HR size, N
= H * W (h, in `_BhDD` and `_BhDN`, counts heads).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.methods.configs import MSTConfig
from feinfn.methods.feinfn.model import conv3
from feinfn.methods.network import Network


class SpectralAttention(nn.Module):
    """Attention between the channels of each head; the softmax runs over the keys' channels."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(channels, 3 * channels, kernel_size=1, bias=False)
        self.sharpness = nn.Parameter(torch.ones(heads, 1, 1))
        self.out = nn.Conv2d(channels, channels, kernel_size=1)
        self.position = nn.Sequential(depthwise(channels), nn.GELU(), depthwise(channels))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        q, k, v_BCHW = self.qkv(x_BCHW).chunk(3, dim=1)
        q, k, v = (t.flatten(2).unflatten(1, (self.heads, -1)) for t in (q, k, v_BCHW))
        # Unit length over the pixels, so that images of any size give similarities in [-1, 1].
        likeness_BhDD = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2)
        mixed_BhDN = (self.sharpness * likeness_BhDD).softmax(dim=-1) @ v
        return self.out(mixed_BhDN.reshape(x_BCHW.shape)) + self.position(v_BCHW)


def depthwise(channels: int) -> nn.Conv2d:
    """Return a depthwise 3x3 convolution."""
    return nn.Conv2d(channels, channels, kernel_size=3, padding=1, groups=channels)


class Block(nn.Module):
    """Attention, then a feed-forward network, each added to its input and normalised per pixel."""

    def __init__(self, channels: int, heads: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        # One group normalisation per image would mix pixels of different brightness.
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = SpectralAttention(channels, heads)
        layers = [nn.Conv2d(channels, wide, 1), nn.GELU(), depthwise(wide), nn.GELU()]
        self.feed_forward = nn.Sequential(*layers, nn.Conv2d(wide, channels, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = x_BCHW + self.attention(per_pixel(self.norm1, x_BCHW))
        return x_BCHW + self.feed_forward(per_pixel(self.norm2, x_BCHW))


def per_pixel(norm: nn.Module, x_BCHW: Tensor) -> Tensor:
    """Return the image with the channels of every pixel normalised."""
    return norm(x_BCHW.movedim(1, -1)).movedim(-1, 1)


class MSTFusion(Network):
    """Spectral-wise transformer for fusion; the LR-HSI enters only through the LMS."""

    name, config_type = "mst", MSTConfig
    about = "U-shaped transformer with attention between channels"
    source = "after Cai et al., CVPR 2022"

    def __init__(self, config: MSTConfig) -> None:
        super().__init__(config)
        c = config.width

        def blocks(scale: int) -> nn.Sequential:
            heads = 2**scale
            count = config.blocks[scale]
            return nn.Sequential(*(Block(c * heads, heads, config.expansion) for _ in range(count)))

        scales = range(len(config.blocks) - 1)
        self.multiple = 2 ** len(scales)
        self.head = conv3(config.msi_bands + config.hsi_bands, c)
        self.down = nn.ModuleList(blocks(i) for i in scales)
        self.shrink = nn.ModuleList(
            nn.Conv2d(c * 2**i, c * 2 ** (i + 1), kernel_size=2, stride=2) for i in scales
        )
        self.bottom = blocks(len(scales))
        self.grow = nn.ModuleList(
            nn.ConvTranspose2d(c * 2 ** (i + 1), c * 2**i, kernel_size=2, stride=2) for i in scales
        )
        self.join = nn.ModuleList(
            nn.Conv2d(c * 2 ** (i + 1), c * 2**i, kernel_size=1) for i in scales
        )
        self.up = nn.ModuleList(blocks(i) for i in scales)
        self.tail = conv3(c, config.hsi_bands)

    def residual(self, msi_BMHW: Tensor, lms_BSHW: Tensor, lr_hsi_BShw: Tensor) -> Tensor:
        first_BCHW = x_BCHW = self.head(torch.cat([msi_BMHW, lms_BSHW], dim=1))
        skips = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            skips.append(blocks(x_BCHW))
            x_BCHW = shrink(skips[-1])
        x_BCHW = self.bottom(x_BCHW)
        for i in reversed(range(len(self.up))):
            joined = torch.cat([self.grow[i](x_BCHW), skips[i]], dim=1)
            x_BCHW = self.up[i](self.join[i](joined))
        return self.tail(x_BCHW + first_BCHW)
