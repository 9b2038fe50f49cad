"""Images as conventions see them, and their quantities: made in pieces that stay in the cache.

Temporaries of a whole cube cost more than the arithmetic, because the system hands out and takes
back their memory each time.

Legend: S bands, s some of them, H W rows and columns.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

PIECE_PX = 2**19
"""Pixels of all bands in a piece: 4 MiB of float64."""


@dataclass(frozen=True)
class Seen:
    """An image [S, H, W] as a convention sees it, made piece by piece as it is indexed."""

    image_SHW: Tensor
    see: Callable[[Tensor], Tensor]
    """Elementwise; its result is float64."""

    def __getitem__(self, place: slice | tuple[slice | Tensor, ...]) -> Tensor:
        return self.see(self.image_SHW[place])

    @property
    def shape(self) -> torch.Size:
        """Bands, rows and columns."""
        return self.image_SHW.shape

    @property
    def device(self) -> torch.device:
        """Device of the image."""
        return self.image_SHW.device


Image = Tensor | Seen
T = TypeVar("T")


@dataclass(frozen=True)
class Quantities:
    """Quantities of a fused image and its reference: each is computed once, when asked for.

    Conventions that see and cut images alike share them.
    """

    fused_SHW: Image
    reference_SHW: Image
    valid_HW: Tensor | None = None
    """False for pixels without data, which are left out; None if every pixel has data."""
    _computed: dict[Any, Any] = field(default_factory=dict)

    def of(self, quantity: Callable[[Image, Image, Tensor | None], T]) -> T:
        """Return a function's value for fused image, reference and pixels with data."""
        if quantity not in self._computed:
            value = quantity(self.fused_SHW, self.reference_SHW, self.valid_HW)
            self._computed[quantity] = value
        return self._computed[quantity]


def band_pieces(*images: Image, valid_HW: Tensor | None = None) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same few bands of every image, [s, H, W]; of pixels with data alone, [s, 1, P].

    A piece holds two bands or more if there are two, because torch adds the pixels of a single one
    in an order that depends on the number of threads.
    """
    bands, height, width = images[0].shape
    count = max(1, bands // max(2, PIECE_PX // (height * width)))
    for first, last in pairwise(bands * i // count for i in range(count + 1)):
        pieces = tuple(image[first:last] for image in images)
        yield pieces if valid_HW is None else tuple(x[:, None, valid_HW] for x in pieces)


def row_pieces(*images: Image) -> Iterator[tuple[Tensor, ...]]:
    """Yield the same few rows of every image with all their bands.

    A piece holds a multiple of 32 pixels, because torch adds the bands of 32 neighbours at a time,
    and those of the pixels beyond in another order.
    """
    bands, height, width = images[0].shape
    least = 32 // math.gcd(32, width)
    step = least * max(1, PIECE_PX // (4 * bands * width * least))
    for first in range(0, height, step):
        yield tuple(image[:, first : first + step] for image in images)
