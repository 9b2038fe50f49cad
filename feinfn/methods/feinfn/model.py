"""FeINFN: Fourier-enhanced implicit neural fusion network (NeurIPS 2024).

    LR-HSI --spectral encoder--> features --+--> spatial fusion --+
                                            |                     +--> decoder --> + --> HR-HSI
    MSI, LMS --spatial encoder--> guide ----+--> Fourier fusion --+               LMS

LMS is the LR-HSI already upsampled to H x W.

Legend: B batch, S bands, M MSI bands, F features, G guide features, L = S + 1 latent bands, h w LR
size, H W HR size.
"""

import torch
from torch import Tensor

from feinfn.config import ModelConfig
from feinfn.methods.feinfn.decoder import Decoder
from feinfn.methods.feinfn.encoders import Encoder
from feinfn.methods.feinfn.fourier import FourierFusion
from feinfn.methods.feinfn.geometry import sampling_geometry
from feinfn.methods.feinfn.spatial import SpatialFusion
from feinfn.methods.feinfn.strips import Strips, strips_within
from feinfn.methods.network import Network


class FeINFN(Network):
    """Fusion of an LR-HSI with an MSI of the same scene.

    Inputs are reflectances in [0, 1]; at other scales the decoder's envelopes vanish. The weights
    do not depend on the ratio H/h.

    `memory_mib` bounds the memory of a forward without gradients (see `strips_within`); `recompute`
    saves memory for a third more training time. Neither changes a result beyond rounding. Under
    `torch.compile(model, fullgraph=True, dynamic=False)` every pair of sizes is one graph.
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
        return self.decoder(maps[0], maps[-1], strips.queries).movedim(-1, 1)
