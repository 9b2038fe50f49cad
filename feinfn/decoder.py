"""The decoder: Gabor filters of one latent map, multiplied by features of the other.

The released decoder multiplies by exp(j w z - (s z)^2) and takes the real part after every product,
which equals exp(-(s z)^2) cos(w z): no complex arithmetic is needed.

Legend: B batch, L latent bands, C decoder channels, S bands, H W image size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Gabor(nn.Module):
    """Real Gabor wavelet exp(-(scale z)^2) cos(omega z) with trainable frequency and scale."""

    def __init__(self, omega_0: float, scale_0: float) -> None:
        super().__init__()
        self.omega_0 = nn.Parameter(torch.tensor([float(omega_0)]))
        self.scale_0 = nn.Parameter(torch.tensor([float(scale_0)]))

    def forward(self, z: Tensor) -> Tensor:
        return torch.exp(-((self.scale_0 * z) ** 2)) * torch.cos(self.omega_0 * z)


class Decoder(nn.Module):
    """Latent maps (spatial, frequency) [B, L, H, W] each to a residual [B, S, H, W].

    q_0 = frequency; k_i = relu(K_i [q_i, spatial]) (K_0 sees spatial alone);
    q_(i+1) = k_i * gabor(Q_i q_i); residual = last(q_n).
    """

    def __init__(
        self, latent: int, width: int, layers: int, bands: int, omega_0: float, scale_0: float
    ) -> None:
        super().__init__()
        self.k = nn.ModuleList(
            nn.Conv2d(latent if i == 0 else width + latent, width, 1) for i in range(layers)
        )
        self.q = nn.ModuleList(
            nn.Conv2d(latent if i == 0 else width, width, 1) for i in range(layers)
        )
        self.gabor = nn.ModuleList(Gabor(omega_0, scale_0) for _ in range(layers))
        self.last = nn.Conv2d(width, bands, 1)

    def forward(self, spatial_BLHW: Tensor, frequency_BLHW: Tensor) -> Tensor:
        q = frequency_BLHW
        for i, (key, query, gabor) in enumerate(zip(self.k, self.q, self.gabor, strict=True)):
            k = F.relu(key(spatial_BLHW if i == 0 else torch.cat([q, spatial_BLHW], dim=1)))
            q = k * gabor(query(q))
        return self.last(q)
