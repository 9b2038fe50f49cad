"""Cost of a network: parameters and operations by module, and widths for an equal count."""

from bisect import bisect_left
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from feinfn.config import ModelConfig
from feinfn.errors import UserError
from feinfn.methods.configs import ClassicalConfig
from feinfn.methods.network import count_parameters
from feinfn.methods.registry import build


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
    # Bases and projections are no layers of the network.
    model, lr_px = build(replace(config, consistency="none")), 4
    root, hr_px = type(model).__name__, lr_px * ratio
    bands, msi_bands = config.hsi_bands, config.msi_bands
    shapes = ((msi_bands, hr_px), (bands, hr_px), (bands, lr_px), (bands, hr_px))
    # The counter knows products that return a new tensor, not those that add to an existing one.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_flop})
    with counter:
        # With gradients the phase network takes whole images; strips would count their halos too.
        model(*(torch.rand(1, channels, px, px) for channels, px in shapes))
    counts = {name: sum(of.values()) for name, of in counter.get_flop_counts().items()}
    rows = []
    for name, module in model.named_modules(prefix=root):
        # A container is never called itself.
        inner = (counts.get(f"{name}.{child}", 0) for child, _ in module.named_children())
        flop = counts.get(name) or sum(inner)
        if flop and name.count(".") <= 2:
            rows.append(Cost(name, count_parameters(module), flop / hr_px**2))
    return rows


@cache
def flop_per_pixel(config: Any, ratio: int) -> float:
    """Return the forward operations of a network per HR pixel."""
    return costs(config, ratio)[0].flop_per_pixel


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

    def count(width: int) -> int:
        return parameters_of(replace(config, feat_dim=width, guide_dim=width))

    if count(1) > target:
        raise UserError(
            f"match_parameters: found a target of {target} parameters, expected at least "
            f"{count(1)}, which a network of width 1 has; make mlp_widths or the decoder smaller"
        )
    high = 2
    while count(high) < target:
        high *= 2
    above = bisect_left(range(high + 1), target, lo=2, key=count)
    width = min((above - 1, above), key=lambda n: abs(count(n) - target))
    return replace(config, feat_dim=width, guide_dim=width)
