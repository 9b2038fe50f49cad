"""The decoder: Gabor filters of one latent map, multiplied by features of the other.

The released decoder multiplies by exp(j w z - (s z)^2) and takes the real part after every product,
which equals exp(-(s z)^2) cos(w z): no complex arithmetic is needed.

Legend: B batch, L latent bands, C decoder channels, S bands, H W image size.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.config import Activation, ModelConfig
from feinfn.strips import in_strips


class _Gabor(torch.autograd.Function):
    """exp(-(scale z)^2) cos(omega z).

    The exponent stops at -60 (1e-26): products with what lies below would be subnormal numbers,
    which processors handle a hundred times slower.
    """

    @staticmethod
    def forward(ctx, z: Tensor, omega: Tensor, scale: Tensor) -> Tensor:
        envelope = (z * scale).square_().clamp_(max=60).neg_().exp_()
        wave = (z * omega).cos_()
        ctx.save_for_backward(z, omega, scale, envelope, wave)
        return envelope * wave

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad: Tensor) -> tuple:
        z, omega, scale, envelope, wave = ctx.saved_tensors
        by_envelope = grad * envelope
        by_wave = by_envelope * (z * omega).sin_()
        by_envelope.mul_(wave).mul_(z)
        by_omega = -(by_wave * z).sum()
        by_scale = -2 * scale * (by_envelope * z).sum()
        by_z = by_wave.mul_(-omega).sub_(by_envelope.mul_(2 * scale**2))
        return by_z, by_omega.view_as(omega), by_scale


def activate(kind: Activation, z: Tensor, *values: Tensor) -> Tensor:
    """Return the filter of `z`; `values` are its frequency and inverse width, as far as used."""
    match kind, values:
        case "gabor", (omega, scale):
            return _Gabor.apply(z, omega, scale)
        case "sine", (omega,):
            return torch.sin(omega * z)
        case "gaussian", (scale,):
            return torch.exp(-((scale * z) ** 2))
        case "relu", ():
            return F.relu(z)
        case "gelu", ():
            return F.gelu(z)
        case "leaky_relu", ():
            return F.leaky_relu(z)
    raise AssertionError(kind)


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

    @property
    def values(self) -> tuple[Tensor, ...]:
        """Return the frequency and inverse width that this filter has."""
        return tuple(v for n in ("omega_0", "scale_0") if (v := getattr(self, n, None)) is not None)

    def forward(self, z: Tensor) -> Tensor:
        return activate(self.kind, z, *self.values)


class Decoder(nn.Module):
    """Latent maps (spatial, frequency) [B, L, H, W] each to a residual [B, S, H, W].

    q_0 = frequency; k_i = relu(K_i [q_i, spatial]) (K_0 sees spatial alone);
    q_(i+1) = k_i * filter(Q_i q_i); residual = last(q_n).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        latent, width, layers = config.latent_bands, config.decoder_width, config.decoder_layers
        self.kind = config.activation
        self.k = nn.ModuleList(
            nn.Conv2d(latent if i == 0 else width + latent, width, 1) for i in range(layers)
        )
        self.q = nn.ModuleList(
            nn.Conv2d(latent if i == 0 else width, width, 1) for i in range(layers)
        )
        filters = 1 if config.activation_shared else layers
        self.filters = nn.ModuleList(Filter(config) for _ in range(filters))
        self.last = nn.Conv2d(width, config.hsi_bands, 1)

    def forward(
        self, spatial_BHWL: Tensor, frequency_BHWL: Tensor, size: int | None = None
    ) -> Tensor:
        """Return the residual [B, H, W, S], made in strips of `size` queries."""
        maps = [spatial_BHWL.flatten(0, 2), frequency_BHWL.flatten(0, 2)]
        layers = [*zip(self.k, self.q, strict=True), (self.last,)]
        linear = [p for layer in layers for conv in layer for p in (conv.weight, conv.bias)]
        values = [v for one in self.filters for v in one.values]
        residual_QS = in_strips(self._pixels, maps, [*linear, *values], size)
        return residual_QS.view(*spatial_BHWL.shape[:3], -1)

    def _pixels(self, spatial_QL: Tensor, q_QC: Tensor, *shared: Tensor) -> Tensor:
        count = 4 * len(self.k) + 2
        weights = [w.flatten(1) for w in shared[:count:2]]
        linear = list(zip(weights, shared[1:count:2], strict=True))
        values = shared[count:]
        each = len(values) // len(self.filters)
        for i in range(len(self.k)):
            k_QC = spatial_QL if i == 0 else torch.cat([q_QC, spatial_QL], dim=1)
            k_QC = F.relu(F.linear(k_QC, *linear[2 * i]), inplace=True)
            first = each * min(i, len(self.filters) - 1)
            z_QC = F.linear(q_QC, *linear[2 * i + 1])
            q_QC = k_QC * activate(self.kind, z_QC, *values[first : first + each])
        return F.linear(q_QC, *linear[-1])
