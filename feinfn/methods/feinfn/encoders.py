"""EDSR encoders without upsampling: head, residual blocks, tail and one long skip.

Legend: B batch, C channels, H W image size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from feinfn.methods.feinfn.strips import Strips, halo_strips


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
