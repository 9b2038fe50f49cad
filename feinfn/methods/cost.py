"""Cost of a network: parameters and operations by module, and widths for an equal count."""

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
"""Levels of modules below the network that are listed."""


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
    """Return the costs of the whole network (named after its class) and of its modules, in order.

    `config` is that of any model in `feinfn.methods.registry`. The list is empty for a classical
    method, whose work depends on the images.
    """
    if isinstance(config, ClassicalConfig):
        return []
    model, lr_px = build(config), 4
    root = type(model).__name__
    hr_px = lr_px * ratio
    shapes = ((config.msi_bands, hr_px), (config.hsi_bands, hr_px), (config.hsi_bands, lr_px))
    # The counter knows products that return a new tensor, not those that add to an existing one.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_flop})
    with counter:
        # With gradients the phase network takes whole images; strips would count their halos too.
        model(*(torch.rand(1, channels, px, px) for channels, px in shapes))
    counts = counter.get_flop_counts()

    def flop(name: str, module: nn.Module) -> int:
        if name in counts:
            return sum(counts[name].values())
        # A container is never called itself.
        return sum(
            flop(f"{name}.{child}", submodule) for child, submodule in module.named_children()
        )

    def cost(name: str, module: nn.Module) -> Cost:
        return Cost(name, count_parameters(module), flop(name, module) / hr_px**2)

    rows = [cost(root, model)]
    for name, module in model.named_modules():
        if name and name.count(".") < DEPTH:
            rows.append(cost(f"{root}.{name}", module))
    return [row for row in rows if row.flop_per_pixel]


def parameters_of(config: Any) -> int:
    """Return the number of trainable parameters without allocating them; 0 if classical."""
    if isinstance(config, ClassicalConfig):
        return 0
    with torch.device("meta"):
        return count_parameters(build(config))


def match_parameters(config: ModelConfig, target: int) -> ModelConfig:
    """Return the configuration with the parameter count nearest to `target`.

    Only the widths of both latent codes (`feat_dim` and `guide_dim`, set equal) change. Raises
    `UserError` if a network of width 1 already has more than `target`.
    """

    def with_width(width: int) -> ModelConfig:
        return replace(config, feat_dim=width, guide_dim=width)

    if parameters_of(with_width(1)) > target:
        raise UserError(
            f"match_parameters: found a target of {target} parameters, expected at least "
            f"{parameters_of(with_width(1))}, which a network of width 1 has; make mlp_widths or "
            "the decoder smaller"
        )
    low, high = 1, 2
    while parameters_of(with_width(high)) < target:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters_of(with_width(middle)) < target else (low, middle)
    return min((with_width(low), with_width(high)), key=lambda c: abs(parameters_of(c) - target))


@cache
def _flop_per_pixel(model: Any, ratio: int) -> float:
    return costs(model, ratio)[0].flop_per_pixel


def flop_per_pixel(model: Any, ratio: int) -> float:
    """Return the forward operations of a network per HR pixel.

    Results are cached for all initial values of the filters, which change no count.
    """
    if isinstance(model, ModelConfig):
        model = replace(model, omega_0=1.0, scale_0=1.0)
    return _flop_per_pixel(model, ratio)
