"""Pixel-wise networks in strips of queries: what a strip needs stays in the processor's cache.

Nothing inside a strip is kept for the backward pass, which computes it again: cheaper than
writing it to memory and reading it back, and the memory does not grow with the number of votes.

Legend: Q queries (HR pixels of all images of the batch, in raster order).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

QUERIES = 1024
"""Queries per strip on a processor (a few MB); a GPU takes all at once."""

@dataclass(frozen=True)
class Strips:
    """How much of an image is worked on at a time; results do not depend on it.

    `queries`: HR pixels per strip of the implicit networks and the decoder (None: what suits the
    device). Without gradients also `rows`: image rows per strip of the encoders and of the phase
    network (None: all), and `channels`: channels per Fourier transform (None: all). With
    gradients, `recompute` keeps no activations of residual blocks and phase votes.
    """

    queries: int | None = None
    rows: int | None = None
    channels: int | None = None
    recompute: bool = False


def slices(total: int, size: int) -> Iterator[slice]:
    """Return consecutive slices of `size` that cover 0..total."""
    return (slice(i, min(i + size, total)) for i in range(0, total, size))


def strip_size(map_QC: Tensor, size: int | None) -> int:
    """Return `size`, or what suits the device."""
    if size is not None:
        return size
    return QUERIES if map_QC.device.type == "cpu" else len(map_QC)


def widen(x: Tensor) -> Tensor:
    """Return `x` in float32 or wider, where gradients of strips are summed."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def for_products(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors in the type that matrix products have under autocast."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    return [x.to(torch.get_autocast_dtype(device)) for x in tensors]
