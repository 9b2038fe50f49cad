"""Implicit fusion in the image domain alone, after LIIF (Chen et al., CVPR 2021).

An HR pixel looks at four LR neighbours. A pointwise network maps (LR code, HR guide, offset) of
each to a residual spectrum, and the four are blended by the areas of LIIF's local ensemble. The
encoders are FeINFN's, so that the methods differ only in the use of the codes. Choices of ours that
LIIF does not make: a guide is added, and there are neither unfolded features nor cells, because the
encoders reach further than three pixels and the protocol fixes the ratio.

Legend: B batch, S bands, M MSI bands, F features, G guide features, K hidden width, V neighbours, R
rows of the table of LR codes, h w LR size, H W HR size, Q queries (HR pixels of the batch).
"""

from functools import reduce
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.methods.configs import ImplicitConfig
from feinfn.methods.feinfn.geometry import sampling_geometry
from feinfn.methods.feinfn.model import Encoder
from feinfn.methods.feinfn.strips import slices
from feinfn.methods.network import Network

QUERIES = 65536
"""Queries processed at a time, which bounds memory for large images."""


class ImplicitFusion(Network):
    """Implicit fusion network, for any ratio."""

    name, config_type = "implicit", ImplicitConfig
    about = "FeINFN's encoders with LIIF's local ensemble, image domain alone"
    source = "after Chen et al., CVPR 2021"

    def __init__(self, config: ImplicitConfig) -> None:
        super().__init__(config)
        c = config
        self.spatial_encoder = Encoder(c.msi_bands + c.hsi_bands, c.guide_dim, c.blocks)
        self.spectral_encoder = Encoder(c.hsi_bands, c.feat_dim, c.blocks)
        first, *others = c.mlp_widths
        # The first layer is linear in its parts, so its LR part is computed once per LR pixel.
        self.from_feat = nn.Linear(c.feat_dim, first)
        self.from_guide = nn.Linear(c.guide_dim, first, bias=False)
        self.from_offset = nn.Linear(2, first, bias=False)
        sizes = [first, *others, c.hsi_bands]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def residual(self, msi_BMHW: Tensor, lms_BSHW: Tensor, lr_hsi_BShw: Tensor) -> Tensor:
        batch, _, height, width = lms_BSHW.shape
        guide_BGHW = self.spatial_encoder(torch.cat([msi_BMHW, lms_BSHW], dim=1))
        feat_BFhw = self.spectral_encoder(lr_hsi_BShw)
        sizes = (tuple(feat_BFhw.shape[2:]), (height, width))
        geometry = sampling_geometry(*sizes, "clamped", lms_BSHW.dtype, lms_BSHW.device)
        table_RK = geometry.table(self.from_feat(feat_BFhw.movedim(1, -1)))
        picks_QV, offset_QV2 = geometry.picks(batch), geometry.offsets(batch)
        guide_QG = guide_BGHW.movedim(1, -1).flatten(0, 2)
        # A neighbour's weight is the area of the rectangle between the pixel and the opposite
        # neighbour. 1e-6 is added to each side, because at the border a side can be zero.
        area_QV = (offset_QV2.abs() + 1e-6).prod(dim=-1).flip(-1)
        weight_QV = area_QV / area_QV.sum(dim=-1, keepdim=True)
        residuals = []
        for s in slices(len(guide_QG), QUERIES):
            shared_QK = self.from_guide(guide_QG[s])
            parts = (x_QV[s].unbind(1) for x_QV in (picks_QV, offset_QV2, weight_QV))
            votes = (
                self._vote(shared_QK + table_RK[pick_Q] + self.from_offset(offset_Q2), weight_Q)
                for pick_Q, offset_Q2, weight_Q in zip(*parts, strict=True)
            )
            # One by one, so that one vote at a time is in memory.
            residuals.append(reduce(torch.add, votes))
        return torch.cat(residuals).view(batch, height, width, -1).movedim(-1, 1)

    def _vote(self, x_QK: Tensor, weight_Q: Tensor) -> Tensor:
        for layer in self.layers:
            x_QK = layer(F.relu(x_QK))
        return x_QK * weight_Q[:, None]
