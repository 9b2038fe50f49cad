"""The interface of all learned models: configuration, network, checks of inputs, and fusion.

Legend: B batch, C channels, S bands, M MSI bands, h w LR size, H W HR size.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from feinfn.errors import UserError
from feinfn.methods.sensor import Sensor
from feinfn.physics import Bands
from feinfn.protocols.protocol import check_ratio
from feinfn.protocols.simulate import Inputs

DIFFERENCE = 10.0
"""Factor of the difference that a network is shown: a residual of 0.002 cannot be read off images
of size 0.3."""


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

    sensor: Sensor | None = None
    """The sensor of the training, which bases and projections need; `registry.build` sets it."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    @property
    def last(self) -> nn.Module:
        """The layer whose output is the residual: by default the one that was made last."""
        return [m for m in self.modules() if isinstance(m, nn.Conv2d | nn.Linear)][-1]

    def forward(
        self,
        msi_BMHW: Tensor,
        lms_BSHW: Tensor,
        lr_hsi_BShw: Tensor,
        base_BSHW: Tensor | None = None,
    ) -> Tensor:
        """Return the fused HSI [B, S, H, W], the base plus the residual, projected, not clipped.

        `base_BSHW` is given where patches are cut from a scene's base, with the interpolation of
        `Sensor.start` in the LMS's place; otherwise both are made of the inputs. Raises `UserError`
        if shapes do not fit.
        """
        check_inputs(self.config, msi_BMHW, lms_BSHW, lr_hsi_BShw)
        inputs = Inputs(msi_BMHW, lms_BSHW, lr_hsi_BShw)
        if self.sensor is not None:
            sizes = lr_hsi_BShw.shape[-2:], msi_BMHW.shape[-2:]
            check_ratio(
                *sizes, self.sensor.protocol.ratio, "MSI of a network that knows its sensor"
            )
        if base_BSHW is None:
            lms_BSHW, base_BSHW = self.start(inputs)
        shown = self.entrance(lms_BSHW, base_BSHW)
        fused_BSHW = self.add_residual(base_BSHW, msi_BMHW, shown, lr_hsi_BShw)
        if self.config.consistency == "none":
            return fused_BSHW
        assert self.sensor is not None, "a projection needs a sensor: see registry.build"
        # While training, images are mostly cut from larger ones, which PSFs at the edge see.
        return self.sensor.meet(
            self.config.consistency, fused_BSHW, inputs, base_BSHW, cut=self.training
        )

    def start(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return the interpolated LR-HSI and the base of whole images, [B, S, H, W]."""
        if self.config.base == "lms":
            return inputs.lms_BSHW, inputs.lms_BSHW
        assert self.sensor is not None, "a base needs a sensor: see registry.build"
        return self.sensor.start(self.config.base, inputs)

    def entrance(self, interpolated_BSHW: Tensor, base_BSHW: Tensor) -> Tensor:
        """Return the image in the LMS's place that the network is shown."""
        if self.config.shown == "image":
            return base_BSHW
        return DIFFERENCE * (interpolated_BSHW - base_BSHW)

    def add_residual(
        self, base_BSHW: Tensor, msi_BMHW: Tensor, shown_BCHW: Tensor, lr_hsi_BShw: Tensor
    ) -> Tensor:
        """Return base + scale x residual; sides are mirrored to multiples and cut again."""
        msi, shown = (pad_to_multiple(x, self.multiple) for x in (msi_BMHW, shown_BCHW))
        residual_BSHW = self.residual(msi, shown, lr_hsi_BShw)
        if self.multiple > 1:
            height, width = base_BSHW.shape[-2:]
            residual_BSHW = residual_BSHW[..., :height, :width]
        if self.config.residual_scale != 1:
            residual_BSHW = self.config.residual_scale * residual_BSHW
        return base_BSHW + residual_BSHW

    def residual(self, msi_BMHW: Tensor, lms_BSHW: Tensor, lr_hsi_BShw: Tensor) -> Tensor:
        """Return the difference of the fused HSI to the base, [B, S, H, W].

        `lms_BSHW` is what `entrance` puts in the LMS's place.
        """
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


def check_gaps(config: Any, where: str) -> None:
    """Raise `UserError` for a network that needs images without gaps.

    What fills the gaps of two images does not agree, so regressions of one on the other learn from
    invented pixels, and LR pixels do not say what they saw.
    """
    fields = {"model.base": config.base, "model.consistency": config.consistency}
    for field, value in fields.items():
        if value in ("gsa", "local", "both"):
            raise UserError(
                f"{where}: found pixels without data, expected none for a network with {field} "
                f"{value}; cut both images to a window with data, or use another network"
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
