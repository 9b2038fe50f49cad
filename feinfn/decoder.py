"""The decoder: Gabor filters of one latent map, multiplied by features of the other.

The released decoder multiplies by exp(j w z - (s z)^2) and takes the real part after every product,
which equals exp(-(s z)^2) cos(w z): no complex arithmetic is needed.

Legend: B batch, L latent bands, C decoder channels, S bands, H W image size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.config import ModelConfig


class Filter(nn.Module):
    """The decoder's non-linearity; omega_0 and scale_0 are parameters, or buffers when fixed."""

    omega_0: Tensor
    scale_0: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.kind = config.activation
        used = {
            "omega_0": config.omega_0 if self.kind in ("gabor", "sine") else None,
            "scale_0": config.scale_0 if self.kind in ("gabor", "gaussian") else None,
        }
        for name, start in used.items():
            if start is None:
                continue
            value = torch.tensor([float(start)])
            if config.activation_trainable:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)

    def forward(self, z: Tensor) -> Tensor:
        match self.kind:
            case "gabor":
                return torch.exp(-((self.scale_0 * z) ** 2)) * torch.cos(self.omega_0 * z)
            case "sine":
                return torch.sin(self.omega_0 * z)
            case "gaussian":
                return torch.exp(-((self.scale_0 * z) ** 2))
            case "relu":
                return F.relu(z)
            case "gelu":
                return F.gelu(z)
            case "leaky_relu":
                return F.leaky_relu(z)


class Decoder(nn.Module):
    """Latent maps (spatial, frequency) [B, L, H, W] each to a residual [B, S, H, W].

    q_0 = frequency; k_i = relu(K_i [q_i, spatial]) (K_0 sees spatial alone);
    q_(i+1) = k_i * filter(Q_i q_i); residual = last(q_n).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        latent, width, layers = config.latent_bands, config.decoder_width, config.decoder_layers
        self.k = nn.ModuleList(
            nn.Conv2d(latent if i == 0 else width + latent, width, 1) for i in range(layers)
        )
        self.q = nn.ModuleList(
            nn.Conv2d(latent if i == 0 else width, width, 1) for i in range(layers)
        )
        filters = 1 if config.activation_shared else layers
        self.filters = nn.ModuleList(Filter(config) for _ in range(filters))
        self.last = nn.Conv2d(width, config.hsi_bands, 1)

    def forward(self, spatial_BLHW: Tensor, frequency_BLHW: Tensor) -> Tensor:
        q = frequency_BLHW
        for i, (key, query) in enumerate(zip(self.k, self.q, strict=True)):
            k = F.relu(key(spatial_BLHW if i == 0 else torch.cat([q, spatial_BLHW], dim=1)))
            q = k * self.filters[min(i, len(self.filters) - 1)](query(q))
        return self.last(q)
