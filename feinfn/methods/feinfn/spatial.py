"""Fusion of the LR latent code with the HR guide in the image domain.

Legend: B batch, F features, G guide features, L latent bands, h w LR size, H W HR size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.config import ModelConfig
from feinfn.methods.feinfn.geometry import Geometry
from feinfn.methods.feinfn.implicit import ImplicitMLP
from feinfn.methods.feinfn.strips import Strips

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
        return self.mlp(parts, guide_BGHW.movedim(1, -1), geometry, strips.queries)
