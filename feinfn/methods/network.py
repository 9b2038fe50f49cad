"""The interface of all learned models: configuration, network, checks of inputs, and fusion.

Legend: B batch, C channels, S bands, M MSI bands, h w LR size, H W HR size.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

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
    """A learned model, made from a frozen configuration; a subclass computes the residual."""

    name: ClassVar[str]
    """Name in studies and in weights files."""
    config_type: ClassVar[type]
    """The dataclass from which it is made."""
    about: ClassVar[str]
    """One line for people."""
    source: ClassVar[str]
    """The paper."""
    multiple: int = 1
    """Number of which both sides of its images must be multiples."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, msi_BMHW: Tensor, lms_BSHW: Tensor, lr_hsi_BShw: Tensor) -> Tensor:
        """Return the fused HSI [B, S, H, W], the LMS plus the residual, not clipped.

        Sides are mirrored to multiples and cut again. Raises `UserError` if shapes do not fit.
        """
        check_inputs(self.config, msi_BMHW, lms_BSHW, lr_hsi_BShw)
        msi, lms = (pad_to_multiple(x, self.multiple) for x in (msi_BMHW, lms_BSHW))
        residual_BSHW = self.residual(msi, lms, lr_hsi_BShw)
        if self.multiple > 1:
            height, width = lms_BSHW.shape[-2:]
            residual_BSHW = residual_BSHW[..., :height, :width]
        return lms_BSHW + residual_BSHW

    def residual(self, msi_BMHW: Tensor, lms_BSHW: Tensor, lr_hsi_BShw: Tensor) -> Tensor:
        """Return the difference of the fused HSI to the LMS, [B, S, H, W]."""
        raise NotImplementedError


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
