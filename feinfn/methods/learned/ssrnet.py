"""SSRNet: spatial-spectral reconstruction in three small stages (Zhang et al., IEEE TGRS 2021).

The MSI's bands replace some bands of the LMS; one convolution fuses the mixture, one restores
spatial and one spectral edges. The paper trains the last two stages with losses on differences
between neighbouring pixels and bands. They are not used here, because all models train with one
loss. Ours: the replaced bands are evenly spread from the first to the last, and every stage adds to
its input, the first one to the LMS.

Legend: B batch, S bands, M MSI bands, h w LR size, H W HR size.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from feinfn.methods.configs import SSRNetConfig
from feinfn.methods.feinfn.model import conv3
from feinfn.methods.network import Network


class SSRNet(Network):
    """SSRNet; the LR-HSI enters only through the LMS."""

    name, config_type = "ssrnet", SSRNetConfig
    about = "three convolutions: fusion, spatial and spectral edges"
    source = "Zhang et al., IEEE TGRS 2021"
    places_M: Tensor

    def __init__(self, config: SSRNetConfig) -> None:
        super().__init__(config)
        bands, places = config.hsi_bands, config.msi_bands
        spread = torch.linspace(0, bands - 1, places, dtype=torch.float64).round().long()
        self.register_buffer("places_M", spread, persistent=False)
        self.fusion = conv3(bands, bands)
        self.spatial_edges = conv3(bands, bands)
        self.spectral_edges = conv3(bands, bands)

    def add_residual(
        self, base_BSHW: Tensor, msi_BMHW: Tensor, shown_BCHW: Tensor, lr_hsi_BShw: Tensor
    ) -> Tensor:
        mixed_BSHW = shown_BCHW.index_copy(1, self.places_M, msi_BMHW)
        x_BSHW = shown_BCHW + self.fusion(mixed_BSHW)
        x_BSHW = x_BSHW + F.relu(self.spatial_edges(x_BSHW))
        x_BSHW = x_BSHW + self.spectral_edges(x_BSHW)
        if shown_BCHW is base_BSHW and self.config.residual_scale == 1:
            return x_BSHW
        # Every stage adds to its input, so the residual is what all of them added.
        return base_BSHW + self.config.residual_scale * (x_BSHW - shown_BCHW)
