"""Pixel-wise networks in strips of queries: what a strip needs stays in the processor's cache.

Nothing inside a strip is kept for the backward pass, which computes it again: cheaper than
writing it to memory and reading it back, and the memory does not grow with the number of votes.

Legend: Q queries (HR pixels of all images of the batch, in raster order).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from feinfn.config import ModelConfig
from feinfn.errors import UserError

QUERIES = 1024
"""Queries per strip on a processor (a few MB); a GPU takes all at once."""


@dataclass(frozen=True)
class Strips:
    """How much of an image is worked on at a time; results do not depend on it.

    `queries`: HR pixels per strip of the implicit networks and the decoder. Without gradients also
    the rows per strip of the spatial encoder and of the phase network, and the `channels` per
    Fourier transform. None means what suits the device. With gradients, `recompute`
    keeps no activations of residual blocks and phase votes.
    """

    queries: int | None = None
    encoder_rows: int | None = None
    phase_rows: int | None = None
    channels: int | None = None
    recompute: bool = False


MIB = 2**20
OVERHEAD_MIB = 16
"""What libraries take when they are first used."""
BUDGET_CHANNELS = 4
"""Channels per Fourier transform under a memory budget."""


def strips_within(
    memory_mib: float, config: ModelConfig, hr_size: tuple[int, int], batch: int
) -> Strips:
    """Return strips with which a float32 forward without gradients fits `memory_mib`.

    The memory is counted above the resting process, without the inputs. What remains whatever the
    strips are the guide, one part of its spectrum, the latent maps and the sampling geometry.
    Raises `UserError` where even single rows do not fit.
    """
    c, (height, width) = config, hr_size
    pixels, budget = batch * height * width, (memory_mib - OVERHEAD_MIB) * MIB
    latent, inputs = c.latent_bands, c.feat_dim + c.guide_dim + 2
    # Bytes: 4 a number, 8 a pick. First what all strips share, then what a row of a strip takes.
    encoding = 4 * pixels * (c.guide_dim + 2 * (c.msi_bands + c.hsi_bands))
    # Twice what one strip takes: allocators keep freed memory of an earlier forward for a while.
    encoding_row = 2 * 4 * width * 5 * batch * c.guide_dim
    fusing = 4 * pixels * (2 * c.guide_dim + 4 * latent + 2 + 18 * (1 + 1 / batch))
    fusing += 6 * 4 * BUDGET_CHANNELS * height * width
    fusing_row = 4 * width * (2 * inputs + 2 * sum(c.mlp_widths))
    encoder_halo = 2 * c.spatial_blocks + 2
    phase_halo = (len(c.mlp_widths) + 1) * (c.frequency_kernel_px // 2)
    encoder_rows = int((budget - encoding) // encoding_row) - 2 * encoder_halo
    phase_rows = int((budget - fusing) // fusing_row) - 2 * phase_halo
    if min(encoder_rows, phase_rows) < 1:
        least = max(
            encoding + encoding_row * (1 + 2 * encoder_halo),
            fusing + fusing_row * (1 + 2 * phase_halo),
        )
        raise UserError(
            f"memory_mib: found {memory_mib:g}, expected at least "
            f"{math.ceil(least / MIB) + OVERHEAD_MIB} for "
            f"{batch} image(s) of {height}x{width}; raise it, or fuse smaller images"
        )
    return Strips(encoder_rows=encoder_rows, phase_rows=phase_rows, channels=BUDGET_CHANNELS)


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
