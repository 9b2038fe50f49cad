"""Decoder: Gabor filters of one latent map, multiplied by features of the other.

The released decoder multiplies by exp(j w z - (s z)^2) and takes the real part after every product.
That equals exp(-(s z)^2) cos(w z), so no complex arithmetic is needed. Filters have their gradients
written out, because layers run in strips, which form them again in the backward pass.

Legend: B batch, L latent bands, C decoder channels, S bands, H W image size, Q queries (HR pixels
of all images of the batch, in raster order).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.config import Activation, ModelConfig
from feinfn.methods.feinfn.implicit import (
    add_product,
    for_products,
    keeps_products,
    relu_backward_,
    widen,
)
from feinfn.methods.feinfn.strips import DECODED, Buffers, Strips, slices, strip_size

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


def _envelope(z: Tensor, scale: Tensor, out: Tensor) -> Tensor:
    return torch.mul(z, scale, out=out).square_().clamp_(max=EXPONENT).neg_().exp_()


def activate(
    kind: Activation, z: Tensor, values: Sequence[Tensor], buffers: Buffers
) -> tuple[Tensor, ...]:
    """Return the filter of `z`, and the intermediate results that `activate_backward` needs.

    `values` are the filter's frequency and inverse width, if it has them. The next call with the
    same `buffers` overwrites the results.
    """
    match kind, values:
        case "gabor", (omega, scale):
            envelope = _envelope(z, scale, buffers("envelope", z))
            phase = torch.mul(z, omega, out=buffers("phase", z))
            filtered = torch.cos(phase, out=buffers("filtered", z)).mul_(envelope)
            return filtered, envelope, phase
        case "sine", (omega,):
            return (torch.mul(z, omega, out=buffers("filtered", z)).sin_(),)
        case "gaussian", (scale,):
            return (_envelope(z, scale, buffers("envelope", z)),)
    return (PLAIN[kind][0](z),)


def activate_backward(
    kind: Activation, grad: Tensor, z: Tensor, parts: Sequence[Tensor], values: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Return the gradients of z and of the values, given that of the filter.

    `parts` are the results of `activate`; they and `grad` are overwritten.
    """
    match kind, values, parts:
        case "gabor", (omega, scale), (filtered, envelope, phase):
            by_phase = phase.sin_().mul_(envelope).mul_(grad)
            by_exponent = filtered.mul_(grad).mul_(z)
            by_omega, by_scale = -_dot(by_phase, z), -2 * scale * _dot(by_exponent, z)
            by_z = by_phase.mul_(-omega).addcmul_(by_exponent, -2 * scale**2)
            return by_z, by_omega.view_as(omega), by_scale
        case "sine", (omega,), _:
            by_phase = grad.mul_((z * omega).cos_())
            return by_phase * omega, _dot(by_phase, z).view_as(omega)
        case "gaussian", (scale,), (filtered,):
            by_exponent = grad.mul_(filtered).mul_(z)
            return -2 * scale**2 * by_exponent, -2 * scale * _dot(by_exponent, z)
    return (PLAIN[kind][1](grad, z),)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    # A sum of products would write them to memory.
    return torch.dot(a.flatten(), b.flatten())


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
    kind: Activation,
    layers: Sequence[Sequence[Tensor]],
    spatial_QL: Tensor,
    q_QC: Tensor,
    buffers: Sequence[Buffers],
    kept: Sequence[Tensor] = (),
) -> Iterator[tuple[Tensor, ...]]:
    """Yield q before, k, z, the filter and its parts of every layer; at last, q alone.

    Layers may share `buffers` if nothing before the last q is wanted but k and z. These are
    computed unless `kept`.
    """
    for i, (w_kq, w_ks, b_k, w_q, b_q, *values) in enumerate(layers):
        if kept:
            k_QC, z_QC = kept[2 * i : 2 * i + 2]
        else:
            k_QC, z_QC = F.linear(spatial_QL, w_ks, b_k), F.linear(q_QC, w_q, b_q)
            if w_kq.numel():
                k_QC.addmm_(q_QC, w_kq.t())
            k_QC.relu_()
        a_QC, *parts = activate(kind, widen(z_QC), values, buffers[i])
        yield q_QC, k_QC, z_QC, a_QC, *parts
        q_QC = torch.mul(k_QC, a_QC, out=buffers[i]("q", a_QC)).to(q_QC.dtype)
    yield (q_QC,)


class _Decode(torch.autograd.Function):
    """All layers in strips of queries.

    Tensors are both maps, weight and bias of the last convolution, and those of `_layers`. With
    `keep`, the backward pass finds every k and z.
    """

    @staticmethod
    def forward(ctx: Any, kind: Activation, size: int, keep: bool, *tensors: Tensor) -> Tensor:
        spatial_QL, q_QL, weight, bias, *others = tensors
        layers = _layers(kind, others)
        out_QS = spatial_QL.new_empty(len(spatial_QL), len(bias))
        buffers = [Buffers()] * len(layers)
        kept: list[Tensor] = []
        for s in slices(len(spatial_QL), size):
            for step in _forward(kind, layers, spatial_QL[s], q_QL[s], buffers):
                kept += step[1:3] if keep else ()
            out_QS[s] = F.linear(step[0], weight, bias)
        ctx.kind, ctx.size, ctx.inputs = kind, size, len(tensors)
        ctx.save_for_backward(*tensors, *kept)
        return out_QS

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_QS: Tensor) -> tuple:
        saved = ctx.saved_tensors
        (spatial_QL, q_QL, *tensors), kept = saved[: ctx.inputs], saved[ctx.inputs :]
        weight, layers = tensors[0], _layers(ctx.kind, tensors[2:])
        sums = [torch.zeros_like(widen(x)) for x in tensors]
        by_weight, by_bias, by_layers = *sums[:2], _layers(ctx.kind, sums[2:])
        by_spatial, by_q = torch.zeros_like(spatial_QL), torch.empty_like(q_QL)
        buffers, own = [Buffers() for _ in layers], Buffers()
        each = 2 * len(layers)
        for i, s in enumerate(slices(len(spatial_QL), ctx.size)):
            maps, known = (spatial_QL[s], q_QL[s]), kept[i * each : (i + 1) * each]
            *steps, (q_QC,) = _forward(ctx.kind, layers, *maps, buffers, known)
            grad_Q, by_s = grad_QS[s], by_spatial[s]
            add_product(by_weight, grad_Q.t(), q_QC)
            by_bias += grad_Q.sum(dim=0)
            grad_Q = torch.mm(grad_Q, weight, out=own("by q", q_QC))
            for layer, totals, (q_QC, k_QC, z_QC, *parts) in zip(
                reversed(layers), reversed(by_layers), reversed(steps), strict=True
            ):
                w_kq, w_ks, _, w_q, _, *values = layer
                by_kq, by_ks, by_bk, by_wq, by_bq, *by_values = totals
                a_QC = parts[0]
                by_k = torch.mul(a_QC, grad_Q, out=own("by k", a_QC)).to(k_QC.dtype)
                by_a = widen(torch.mul(k_QC, grad_Q, out=own("by a", k_QC)))
                relu_backward_(by_k, k_QC)
                by_z, *grads = activate_backward(ctx.kind, by_a, widen(z_QC), parts, values)
                by_z = by_z.to(q_QC.dtype)
                add_product(by_ks, by_k.t(), spatial_QL[s])
                add_product(by_wq, by_z.t(), q_QC)
                by_bk += by_k.sum(dim=0)
                by_bq += by_z.sum(dim=0)
                for total, grad in zip(by_values, grads, strict=True):
                    total += grad
                by_s.addmm_(by_k, w_ks)
                grad_Q = torch.mm(by_z, w_q, out=own("by q", q_QC))
                if w_kq.numel():
                    add_product(by_kq, by_k.t(), q_QC)
                    grad_Q.addmm_(by_k, w_kq)
            by_q[s] = grad_Q
        by_tensors = (total.to(x.dtype) for total, x in zip(sums, tensors, strict=True))
        return None, None, None, by_spatial, by_q, *by_tensors


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

    def forward(self, spatial_BHWL: Tensor, frequency_BHWL: Tensor, strips: Strips) -> Tensor:
        """Return the residual [B, H, W, S]."""
        latent, filters = spatial_BHWL.shape[-1], self.filters
        maps = (spatial_BHWL.flatten(0, 2), frequency_BHWL.flatten(0, 2))
        tensors = for_products(*maps, *_linear(self.last))
        for i, (key, query) in enumerate(zip(self.k, self.q, strict=True)):
            w_k, b_k = _linear(key)
            w_kq_ks = w_k.split([w_k.shape[1] - latent, latent], dim=1)
            values = [getattr(filters[min(i, len(filters) - 1)], n) for n in VALUES[self.kind]]
            tensors += [*for_products(*w_kq_ks, b_k, *_linear(query)), *values]
        size = strip_size(tensors[0], strips.queries, DECODED)
        keep = keeps_products(strips, tensors)
        with torch.autocast(tensors[0].device.type, enabled=False):
            residual_QS = _Decode.apply(self.kind, size, keep, *tensors)
        return residual_QS.view(*spatial_BHWL.shape[:3], -1)
