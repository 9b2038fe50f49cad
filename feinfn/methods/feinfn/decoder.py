"""Decoder: Gabor filters of one latent map, multiplied by features of the other.

The released decoder multiplies by exp(j w z - (s z)^2) and takes the real part after every product.
That equals exp(-(s z)^2) cos(w z), so no complex arithmetic is needed. Filters have their gradients
written out, because layers run in strips that store nothing for the backward pass.

Legend: B batch, L latent bands, C decoder channels, S bands, H W image size, Q queries (HR pixels
of all images of the batch, in raster order).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.config import Activation, ModelConfig
from feinfn.methods.feinfn.implicit import for_products, widen
from feinfn.methods.feinfn.strips import slices, strip_size

_aten = torch.ops.aten
PLAIN: dict[Activation, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "relu": (F.relu, lambda grad, z: _aten.threshold_backward(grad, z, 0)),
    "gelu": (F.gelu, _aten.gelu_backward),
    "leaky_relu": (F.leaky_relu, lambda grad, z: _aten.leaky_relu_backward(grad, z, 0.01, False)),
}
"""Filters without values, each with its gradient."""

VALUES: dict[Activation, tuple[str, ...]] = {
    "gabor": ("omega_0", "scale_0"),
    "sine": ("omega_0",),
    "gaussian": ("scale_0",),
    **dict.fromkeys(PLAIN, ()),
}
"""Values of each kind of filter: a frequency, an inverse width, both or none."""

EXPONENT = 60.0
"""Largest exponent of an envelope, exp(-60) = 1e-26. Products with smaller envelopes would be
subnormal numbers, which are a hundred times slower on a CPU."""


def _envelope(z: Tensor, scale: Tensor) -> Tensor:
    return (z * scale).square_().clamp_(max=EXPONENT).neg_().exp_()


def activate(kind: Activation, z: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Return the filter of `z`, and the intermediate results that `activate_backward` needs.

    `values` are the filter's frequency and inverse width, if it has them.
    """
    match kind, values:
        case "gabor", (omega, scale):
            envelope, phase = _envelope(z, scale), z * omega
            return phase.cos().mul_(envelope), envelope, phase
        case "sine", (omega,):
            return ((z * omega).sin_(),)
        case "gaussian", (scale,):
            envelope = _envelope(z, scale)
            return envelope, envelope
    return (PLAIN[kind][0](z),)


def activate_backward(
    kind: Activation, grad: Tensor, z: Tensor, parts: Sequence[Tensor], *values: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of z and of the values, given that of the filter; overwrites `parts`."""
    match kind, values, parts:
        case "gabor", (omega, scale), (envelope, phase):
            by_envelope = envelope.mul_(grad)
            by_wave = phase.sin().mul_(by_envelope)
            by_envelope.mul_(phase.cos_()).mul_(z)
            by_omega = -(by_wave * z).sum()
            by_scale = -2 * scale * (by_envelope * z).sum()
            by_z = by_wave.mul_(-omega).sub_(by_envelope.mul_(2 * scale**2))
            return by_z, by_omega.view_as(omega), by_scale
        case "sine", (omega,), _:
            by_phase = grad * (z * omega).cos_()
            return by_phase * omega, (by_phase * z).sum().view_as(omega)
        case "gaussian", (scale,), (envelope,):
            by_exponent = grad * envelope * z
            return -2 * scale**2 * by_exponent, -2 * scale * (by_exponent * z).sum()
    return (PLAIN[kind][1](grad, z),)


class Filter(nn.Module):
    """The decoder's non-linearity; omega_0 and scale_0 are parameters, or buffers if fixed."""

    omega_0: Tensor
    scale_0: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        for name in VALUES[config.activation]:
            value = torch.tensor([float(getattr(config, name))])
            if config.activation_trainable:
                self.register_parameter(name, nn.Parameter(value))
            else:
                self.register_buffer(name, value)


def _layers(kind: Activation, tensors: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """Return the tensors of each layer: w_kq, w_ks, b_k, w_q, b_q, and the filter's values.

    w_kq and w_ks are the parts of K that see q and the spatial map; the first layer's w_kq is
    empty.
    """
    size = 5 + len(VALUES[kind])
    return [tensors[s] for s in slices(len(tensors), size)]


def _forward(
    kind: Activation, layers: Sequence[Sequence[Tensor]], spatial_QL: Tensor, q_QC: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """Yield q before, k, z, the filter and its parts of every layer; at last, q alone."""
    for w_kq, w_ks, b_k, w_q, b_q, *values in layers:
        k_QC = F.linear(spatial_QL, w_ks, b_k)
        if w_kq.numel():
            k_QC.addmm_(q_QC, w_kq.t())
        z_QC = widen(F.linear(q_QC, w_q, b_q))
        a_QC, *parts = activate(kind, z_QC, *values)
        yield q_QC, k_QC.relu_(), z_QC, a_QC, *parts
        q_QC = (k_QC * a_QC).to(q_QC.dtype)
    yield (q_QC,)


class _Decode(torch.autograd.Function):
    """All layers in strips of queries; the backward pass recomputes each strip.

    Tensors are both maps, weight and bias of the last convolution, and those of `_layers`.
    """

    @staticmethod
    def forward(ctx: Any, kind: Activation, size: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.kind, ctx.size = kind, size
        spatial_QL, q_QL, weight, bias, *others = tensors
        layers = _layers(kind, others)
        out_QS = spatial_QL.new_empty(len(spatial_QL), len(bias))
        for s in slices(len(spatial_QL), size):
            *_, (q_QC,) = _forward(kind, layers, spatial_QL[s], q_QL[s])
            out_QS[s] = F.linear(q_QC, weight, bias)
        return out_QS

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_QS: Tensor) -> tuple:
        spatial_QL, q_QL, *tensors = ctx.saved_tensors
        weight, layers = tensors[0], _layers(ctx.kind, tensors[2:])
        sums = [torch.zeros_like(widen(x)) for x in tensors]
        by_weight, by_bias, by_layers = *sums[:2], _layers(ctx.kind, sums[2:])
        by_spatial, by_q = torch.empty_like(spatial_QL), torch.empty_like(q_QL)
        for s in slices(len(spatial_QL), ctx.size):
            *steps, (q_QC,) = _forward(ctx.kind, layers, spatial_QL[s], q_QL[s])
            grad_Q = grad_QS[s]
            by_weight += grad_Q.t() @ q_QC
            by_bias += grad_Q.sum(dim=0)
            grad_Q, by_s = grad_Q @ weight, 0
            for layer, totals, (q_QC, k_QC, z_QC, a_QC, *parts) in zip(
                reversed(layers), reversed(by_layers), reversed(steps), strict=True
            ):
                w_kq, w_ks, _, w_q, _, *values = layer
                by_k = (a_QC * grad_Q).to(k_QC.dtype)
                by_k = torch.ops.aten.threshold_backward(by_k, k_QC, 0)
                by_a = widen(k_QC * grad_Q)
                by_z, *by_values = activate_backward(ctx.kind, by_a, z_QC, parts, *values)
                by_z = by_z.to(q_QC.dtype)
                by_kq = by_k.t() @ q_QC if w_kq.numel() else w_kq
                by_ks, by_wq = by_k.t() @ spatial_QL[s], by_z.t() @ q_QC
                by_layer = (by_kq, by_ks, by_k.sum(dim=0), by_wq, by_z.sum(dim=0), *by_values)
                for total, grad in zip(totals, by_layer, strict=True):
                    total += grad
                by_s = by_k @ w_ks + by_s
                grad_Q = by_z @ w_q
                if w_kq.numel():
                    grad_Q.addmm_(by_k, w_kq)
            by_spatial[s], by_q[s] = by_s, grad_Q
        grads = (total.to(x.dtype) for total, x in zip(sums, tensors, strict=True))
        return None, None, by_spatial, by_q, *grads


def _linear(conv: Any) -> tuple[Tensor, Tensor]:
    """Return the weight [out, in] and the bias of a 1x1 convolution."""
    return conv.weight.flatten(1), conv.bias


class Decoder(nn.Module):
    """Decoder of two latent maps (spatial, frequency), [B, H, W, L], to a residual [B, H, W, S].

    q_0 = frequency; k_i = relu(K_i [q_i, spatial]), with K_0 of spatial alone;
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
        """Return the residual [B, H, W, S], computed in strips of `size` queries."""
        latent, filters = spatial_BHWL.shape[-1], self.filters
        maps = (spatial_BHWL.flatten(0, 2), frequency_BHWL.flatten(0, 2))
        tensors = for_products(*maps, *_linear(self.last))
        for i, (key, query) in enumerate(zip(self.k, self.q, strict=True)):
            w_k, b_k = _linear(key)
            w_kq_ks = w_k.split([w_k.shape[1] - latent, latent], dim=1)
            values = [getattr(filters[min(i, len(filters) - 1)], n) for n in VALUES[self.kind]]
            tensors += [*for_products(*w_kq_ks, b_k, *_linear(query)), *values]
        size = strip_size(tensors[0], size)
        with torch.autocast(tensors[0].device.type, enabled=False):
            residual_QS = _Decode.apply(self.kind, size, *tensors)
        return residual_QS.view(*spatial_BHWL.shape[:3], -1)
