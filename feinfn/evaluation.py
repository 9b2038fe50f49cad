"""Evaluation: fuse images by one method and score them, in validation, tests and grids alike.

Legend: S bands, H W HR size.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from feinfn.data.pairs import Images, NamedInputs
from feinfn.methods.classical.registry import Method
from feinfn.methods.network import check_gaps, fuse
from feinfn.metrics.evaluation import Comparison
from feinfn.metrics.label import CONVENTION
from feinfn.protocols.protocol import Protocol

Fuse = Callable[[NamedInputs], Tensor]
"""A method that is ready: it returns the fused HSI [S, H, W] in [0, 1] of one image."""


@dataclass(frozen=True)
class Evaluation:
    """One fused image with its scores."""

    image: NamedInputs
    fused_SHW: Tensor
    """The fused HSI, 0 in pixels without data."""
    scores: dict[str, dict[str, float]]
    """Printed metrics by convention; empty for an image without reference."""
    comparison: Comparison | None
    """The two images, for indices of every band and maps; None for an image without reference."""


def evaluate_method(
    method: Fuse, images: Images, conventions: Sequence[str] = (CONVENTION,)
) -> Iterator[Evaluation]:
    """Fuse every image once and yield it with its scores."""
    for image in images:
        fused_SHW = method(image)
        if image.valid is not None:
            fused_SHW = torch.where(image.valid, fused_SHW, 0)
        comparison = compare_image(fused_SHW, image)
        scores = scores_of(comparison, images.protocol.ratio, conventions)
        yield Evaluation(image, fused_SHW, scores, comparison)


def compare_image(fused_SHW: Tensor, image: NamedInputs) -> Comparison | None:
    """Return the comparison of a fused image with the reference; None if there is none.

    Pixels without data in either are left out, with every window that touches one.
    """
    if image.reference is None:
        return None
    return Comparison(fused_SHW, image.reference, image.valid)


def scores_of(
    comparison: Comparison | None, ratio: int, conventions: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the printed metrics by convention; none without a comparison."""
    if comparison is None:
        return {}
    return {name: comparison.evaluate(ratio, name) for name in conventions}


def by_network(model: nn.Module) -> Fuse:
    """Return the fusion of a network; it raises `UserError` as `check_gaps` does."""

    def fuse_image(image: NamedInputs) -> Tensor:
        if image.filled_apart and image.valid is not None:
            check_gaps(model.config, image.name)
        return fuse(model, image.inputs)[0]

    return fuse_image


def by_classical(method: Method, protocol: Protocol) -> Fuse:
    """Return the fusion of a classical method under a protocol, on the images' device."""

    def solve(image: NamedInputs) -> Tensor:
        images = (image.inputs.lr_hsi_BShw, image.inputs.msi_BMHW)
        lr_hsi, msi = (x[0].cpu().numpy() for x in images)
        masks = (image.lr_valid_hw, image.msi_valid_HW)
        fused_SHW = method.fuse(lr_hsi, msi, protocol, image.wavelengths_nm, *masks)
        return torch.from_numpy(fused_SHW).to(images[0].device)

    return solve
