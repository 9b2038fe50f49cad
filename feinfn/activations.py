"""The decoder's non-linearities and their gradients, written for strips that keep nothing.

The released decoder multiplies by exp(j w z - (s z)^2) and takes the real part after every product,
which equals exp(-(s z)^2) cos(w z): no complex arithmetic is needed.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.config import Activation, ModelConfig

VALUES: dict[Activation, tuple[str, ...]] = {
    "gabor": ("omega_0", "scale_0"),
    "sine": ("omega_0",),
    "gaussian": ("scale_0",),
    "relu": (),
    "gelu": (),
    "leaky_relu": (),
}
"""What each filter has: a frequency, an inverse width."""

EXPONENT = 60.0
"""Where envelopes stop falling, exp(-60) = 1e-26: products with less would be subnormal numbers,
which processors handle a hundred times slower."""


def _envelope(z: Tensor, scale: Tensor) -> Tensor:
    return (z * scale).square_().clamp_(max=EXPONENT).neg_().exp_()


def activate(kind: Activation, z: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
    """Return the filter of `z`, and parts of it that `activate_backward` needs again.

    `values` are the filter's frequency and inverse width, as far as it has them.
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
        case "relu", ():
            return (F.relu(z),)
        case "gelu", ():
            return (F.gelu(z),)
        case "leaky_relu", ():
            return (F.leaky_relu(z),)
    raise AssertionError(kind)


def activate_backward(
    kind: Activation, grad: Tensor, z: Tensor, parts: Sequence[Tensor], *values: Tensor
) -> tuple[Tensor, ...]:
    """Return the gradients of z and of the values for a gradient of the filter; spoils `parts`."""
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
        case "relu", (), _:
            return (torch.ops.aten.threshold_backward(grad, z, 0),)
        case "gelu", (), _:
            return (torch.ops.aten.gelu_backward(grad, z),)
        case "leaky_relu", (), _:
            return (torch.ops.aten.leaky_relu_backward(grad, z, 0.01, False),)
    raise AssertionError(kind)


class Filter(nn.Module):
    """The decoder's non-linearity; omega_0 and scale_0 are parameters, or buffers when fixed."""

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
