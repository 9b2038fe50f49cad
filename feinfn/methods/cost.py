"""What a network costs: parameters and operations by module, and widths for an equal count."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from feinfn.config import ModelConfig
from feinfn.errors import UserError
from feinfn.methods.classical.registry import ClassicalConfig
from feinfn.methods.network import count_parameters
from feinfn.methods.registry import build

DEPTH = 2
"""Levels of modules below the network that are told apart."""


@dataclass(frozen=True)
class Cost:
    """Trainable parameters of one module, and its operations per HR pixel.

    Operations are those of matrix products and convolutions in one forward pass, two per
    multiply-add; Fourier transforms and element-wise work are left out.
    """

    module: str
    parameters: int
    flop_per_pixel: float


def _addmm_flop(_total: list[int], a: list[int], b: list[int], **_: object) -> int:
    return 2 * a[0] * a[1] * b[1]


def costs(config: Any, ratio: int) -> list[Cost]:
    """Return the costs of the whole network (named by its class) and of its modules, in order.

    `config` is that of any model of `feinfn.methods.registry`; the work of a classical
    method, which depends on the images, is not counted: there are no costs then.
    """
    if isinstance(config, ClassicalConfig):
        return []
    model, lr_px = build(config), 4
    root = type(model).__name__
    hr_px = lr_px * ratio
    shapes = ((config.msi_bands, hr_px), (config.hsi_bands, hr_px), (config.hsi_bands, lr_px))
    # The counter knows the product that returns a new tensor, not the one that adds to another.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_flop})
    with counter:
        # With gradients the phase network takes whole images: strips would add their halo.
        model(*(torch.rand(1, channels, px, px) for channels, px in shapes))
    counts = counter.get_flop_counts()

    def flop(name: str, module: nn.Module) -> int:
        if name in counts:
            return sum(counts[name].values())
        # A container is never called itself.
        return sum(flop(f"{name}.{child}", one) for child, one in module.named_children())

    def cost(name: str, module: nn.Module) -> Cost:
        return Cost(name, count_parameters(module), flop(name, module) / hr_px**2)

    found = [cost(root, model)]
    for name, module in model.named_modules():
        if name and name.count(".") < DEPTH:
            found.append(cost(f"{root}.{name}", module))
    return [one for one in found if one.flop_per_pixel]


def parameters_of(config: Any) -> int:
    """Return the number of trainable parameters, without allocating them; none where classical."""
    if isinstance(config, ClassicalConfig):
        return 0
    with torch.device("meta"):
        return count_parameters(build(config))


def match_parameters(config: ModelConfig, target: int) -> ModelConfig:
    """Return the configuration whose parameter count is nearest to `target`.

    The widths of both latent codes (`feat_dim` and `guide_dim`, set equal) are solved for; all else
    stays. Raises `UserError` where even a width of 1 has more than `target`.
    """

    def at(width: int) -> ModelConfig:
        return replace(config, feat_dim=width, guide_dim=width)

    if parameters_of(at(1)) > target:
        raise UserError(
            f"match_parameters: found a target of {target} parameters, expected at least "
            f"{parameters_of(at(1))}, which a network of width 1 has; make mlp_widths or the "
            "decoder smaller"
        )
    low, high = 1, 2
    while parameters_of(at(high)) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters_of(at(middle)) < target else (low, middle)
    return min((at(low), at(high)), key=lambda c: abs(parameters_of(c) - target))


@cache
def _flop_per_pixel(model: Any, ratio: int) -> float:
    return costs(model, ratio)[0].flop_per_pixel


def flop_per_pixel(model: Any, ratio: int) -> float:
    """Return the forward operations per HR pixel of a network; initial values change none."""
    if isinstance(model, ModelConfig):
        model = replace(model, omega_0=1.0, scale_0=1.0)
    return _flop_per_pixel(model, ratio)
