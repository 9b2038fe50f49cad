"""The interface of all learned models: configuration, network, checks of inputs, and fusion.

Legend: B batch, C channels, S bands, M MSI bands, h w LR size, H W HR size.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from feinfn.config import Bands
from feinfn.errors import UserError
from feinfn.protocols.simulate import Inputs


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(Bands):
    """Configuration of a network besides FeINFN; subclasses add a name and further sizes.

    The name is a field, so that a spec and a weights file state the model to which they belong.
    """


def pad_to_multiple(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Return the image mirrored at its last row and column until both sides are multiples.

    Images of any size work: one smaller than the padding is mirrored repeatedly.
    """
    for dim in (-2, -1):
        size = x_BCHW.shape[dim]
        if size % multiple:
            period = max(2 * size - 2, 1)
            index = torch.arange(-(-size // multiple) * multiple, device=x_BCHW.device) % period
            x_BCHW = x_BCHW.index_select(dim, torch.where(index < size, index, period - index))
    return x_BCHW


class Network(nn.Module):
    """A learned model with its configuration as `config`.

    `forward(msi_BMHW, lms_BSHW, lr_hsi_BShw)` returns the fused HSI [B, S, H, W], not clipped.
    """

    config: Any


def check_inputs(config: Bands, msi: Tensor, lms: Tensor, lr_hsi: Tensor) -> None:
    """Raise `UserError` if the three images do not fit a network or each other."""
    bands = {"MSI": config.msi_bands, "LMS": config.hsi_bands}
    bands["LR-HSI"] = config.hsi_bands
    for (name, count), x in zip(bands.items(), (msi, lms, lr_hsi), strict=True):
        if x.dim() != 4 or x.shape[1] != count:
            raise UserError(
                f"{name}: found shape {tuple(x.shape)}, expected [batch, {count}, rows, "
                "columns]; set model.hsi_bands and model.msi_bands to the data's band counts"
            )
    if msi.shape[-2:] != lms.shape[-2:] or len({len(msi), len(lms), len(lr_hsi)}) != 1:
        raise UserError(
            f"MSI {tuple(msi.shape)}, LMS {tuple(lms.shape)} and LR-HSI {tuple(lr_hsi.shape)} "
            "do not belong together: MSI and LMS need one size, and all three one batch"
        )


def count_parameters(model: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@torch.inference_mode()
def fuse(model: nn.Module, pair: Inputs) -> Tensor:
    """Return the fused HSI [B, S, H, W], clipped to [0, 1], in evaluation mode.

    The model keeps its training mode.
    """
    was_training = model.training
    model.eval()
    fused = model(*pair.inputs()).clamp(0, 1)
    model.train(was_training)
    return fused
