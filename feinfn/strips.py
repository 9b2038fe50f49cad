"""Pixel-wise networks in strips of queries: what a strip needs stays in the processor's cache.

Nothing inside a strip is kept for the backward pass, which computes it again: cheaper than
writing it to memory and reading it back, and the memory does not grow with the number of votes.

Legend: Q queries (HR pixels of all images of the batch, in raster order).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

QUERIES = 1024
"""Queries per strip on a processor (a few MB); a GPU takes all at once."""

StripFunction = Callable[..., Tensor]


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


def in_strips(
    function: StripFunction, maps: Sequence[Tensor], shared: Sequence[Tensor], size: int | None
) -> Tensor:
    """Return `function(*maps, *shared)` [Q, C], computed `size` queries at a time.

    `maps` are [Q, ...] and are cut into strips, `shared` reach every strip whole. The function must
    treat every query by itself. Gradients reach maps and shared tensors.
    """
    size = strip_size(maps[0], size)
    if len(maps[0]) <= size:
        return function(*maps, *shared)
    return _Strips.apply(function, size, len(maps), *maps, *shared)


class _Strips(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function: StripFunction, size: int, cut: int, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        ctx.function, ctx.size, ctx.cut = function, size, cut
        device = tensors[0].device.type
        ctx.autocast = {
            "device_type": device,
            "dtype": torch.get_autocast_dtype(device),
            "enabled": torch.is_autocast_enabled(device),
        }
        maps, shared = tensors[:cut], tensors[cut:]
        out: Tensor | None = None
        for strip in slices(len(maps[0]), size):
            part = function(*(m[strip] for m in maps), *shared)
            if out is None:
                out = part.new_empty(len(maps[0]), *part.shape[1:])
            out[strip] = part
        assert out is not None
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_QC: Tensor) -> tuple:
        tensors, cut = ctx.saved_tensors, ctx.cut
        needed = ctx.needs_input_grad[3:]
        maps, shared = tensors[:cut], tensors[cut:]
        shared = [s.detach().requires_grad_(n) for s, n in zip(shared, needed[cut:], strict=True)]
        map_grads = [torch.empty_like(m) if n else None for m, n in zip(maps, needed, strict=False)]
        # Sums over strips are made in float32 or wider.
        wide = [torch.promote_types(s.dtype, torch.float32) for s in shared]
        shared_grads = [
            torch.zeros_like(s, dtype=w) if s.requires_grad else None
            for s, w in zip(shared, wide, strict=True)
        ]
        for strip in slices(len(maps[0]), ctx.size):
            with torch.enable_grad(), torch.autocast(**ctx.autocast):
                parts = [
                    m[strip].detach().requires_grad_(n) for m, n in zip(maps, needed, strict=False)
                ]
                out = ctx.function(*parts, *shared)
            wanted = [x for x in (*parts, *shared) if x.requires_grad]
            grads = iter(torch.autograd.grad(out, wanted, grad_QC[strip]))
            for total in map_grads:
                if total is not None:
                    total[strip] = next(grads)
            for total in shared_grads:
                if total is not None:
                    total += next(grads)
        totals = [
            g if g is None else g.to(s.dtype) for g, s in zip(shared_grads, shared, strict=True)
        ]
        return None, None, None, *map_grads, *totals
