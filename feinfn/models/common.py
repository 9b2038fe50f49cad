"""What all learned models share: the sizes of their images, and the checks of their fields."""

from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor

from feinfn.config import STRICT, require


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Band counts, which every network needs; subclasses add its name and its own shape.

    The name is a field, so that a spec and a weights file tell what they belong to.
    """

    __pydantic_config__: ClassVar[dict] = STRICT

    hsi_bands: int = 31
    """Bands S of the HSI."""
    msi_bands: int = 3
    """Bands M of the MSI."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name == "name":
                continue
            value = getattr(self, field.name)
            many = isinstance(value, tuple)
            good = len(value) >= 1 and min(value) >= 1 if many else value >= 1
            expected = "one or more integers >= 1" if many else "an integer >= 1"
            require(good, f"model.{field.name}", value, expected)


def pad_to_multiple(x_BCHW: Tensor, multiple: int) -> Tensor:
    """Return the image mirrored at its last row and column until both sides are multiples.

    Any size: an image smaller than the padding is mirrored to and fro.
    """
    for dim in (-2, -1):
        size = x_BCHW.shape[dim]
        if size % multiple:
            period = max(2 * size - 2, 1)
            place = torch.arange(-(-size // multiple) * multiple, device=x_BCHW.device) % period
            x_BCHW = x_BCHW.index_select(dim, torch.where(place < size, place, period - place))
    return x_BCHW
