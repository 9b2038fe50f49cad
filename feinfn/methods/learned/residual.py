"""A plain residual network of 3x3 convolutions: the baseline that every other network must beat.

Legend: B batch, S bands, M MSI bands, C width, h w LR size, H W HR size.
"""

import torch
from torch import Tensor, nn

from feinfn.methods.configs import ResidualConfig
from feinfn.methods.feinfn.model import ResidualBlock, conv3
from feinfn.methods.network import Network


class ResidualNetwork(Network):
    """Plain residual network; the LR-HSI enters only through base and difference."""

    name, config_type = "residual", ResidualConfig
    about = "one chain of 3x3 convolutions with short skips"
    source = "after Lim et al. (EDSR), CVPR Workshops 2017"

    def __init__(self, config: ResidualConfig) -> None:
        super().__init__(config)
        images = 1 if config.shown == "image" else 2
        self.head = conv3(config.msi_bands + images * config.hsi_bands, config.width)
        self.blocks = nn.Sequential(*(ResidualBlock(config.width) for _ in range(config.blocks)))
        self.tail = conv3(config.width, config.hsi_bands)

    def entrance(self, interpolated_BSHW: Tensor, base_BSHW: Tensor) -> Tensor:
        """Return what stands in the LMS's place; with a difference, the base beside it."""
        shown_BSHW = super().entrance(interpolated_BSHW, base_BSHW)
        if self.config.shown == "image":
            return shown_BSHW
        return torch.cat([base_BSHW, shown_BSHW], dim=1)

    def residual(self, msi_BMHW: Tensor, lms_BSHW: Tensor, lr_hsi_BShw: Tensor) -> Tensor:
        return self.tail(self.blocks(self.head(torch.cat([msi_BMHW, lms_BSHW], dim=1))))
