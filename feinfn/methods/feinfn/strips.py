"""Strips: the part of an image that is processed at a time, and the memory it takes.

Pixel-wise networks run in strips of queries, so that the data of a strip stays in the CPU's cache.
For the backward pass of the implicit networks and the decoder, results of products are stored,
unless `Strips.recompute` is set; the rest, which is larger, is always formed again.

Legend: Q queries (HR pixels of all images of the batch, in raster order), C channels.
"""

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from feinfn.config import ModelConfig
from feinfn.errors import UserError

if TYPE_CHECKING:
    # Plans ask for strips without torch.
    from torch import Tensor

QUERIES = 1024
"""Queries per strip on a CPU (a few MB); a GPU takes all at once."""

DECODED = 4 * QUERIES
"""Queries per strip of the decoder on a CPU, where a query is one row and not four votes."""


@dataclass(frozen=True)
class Strips:
    """Sizes of the parts of an image that are processed at a time; results do not depend on them.

    `queries`: HR pixels per strip of the implicit networks and the decoder. Only without gradients:
    rows per strip of the spatial encoder and of the phase network, channels per Fourier transform.
    Only with gradients: `recompute` stores no activations of residual blocks, votes and decoder
    layers. None chooses by device.
    """

    queries: int | None = None
    encoder_rows: int | None = None
    phase_rows: int | None = None
    channels: int | None = None
    recompute: bool = False


MIB = 2**20

OVERHEAD_MIB = 64
"""Memory in MiB that libraries allocate on first use."""

SLACK = 1.15
"""Factor for memory that allocators keep after an earlier forward freed it."""

BUDGET_CHANNELS = 4
"""Channels per Fourier transform under a memory budget."""


def strips_within(
    memory_mib: float,
    config: ModelConfig,
    lr_size: tuple[int, int],
    hr_size: tuple[int, int],
    batch: int,
) -> Strips:
    """Return strips with which a float32 forward without gradients fits into `memory_mib`.

    The memory is counted above that of the idle process, without the inputs. Strips cannot reduce
    the guide, one part of its spectrum, the latent maps and the sampling geometry. Raises
    `UserError` if even single rows do not fit.
    """
    c, (height, width) = config, hr_size
    pixels, budget = batch * height * width, (memory_mib - OVERHEAD_MIB) * MIB / SLACK
    latent, inputs, hidden = c.latent_bands, c.feat_dim + c.guide_dim + 2, c.mlp_widths[0]
    # Bytes: 4 per number, 8 per pick. First memory that all strips share, then that of a row.
    small = 4 * batch * lr_size[0] * lr_size[1] * (4 * c.feat_dim + 2 * hidden)
    encoding = small + 4 * pixels * (c.guide_dim + 2 * (c.msi_bands + c.hsi_bands))
    # Twice the size of one strip, because its freed memory returns slowly.
    encoding_row = 2 * 4 * width * 5 * batch * c.guide_dim
    geometry, extra = 18 / batch, 0.0
    if c.fourier_branch and c.spectrum_origin == "centre":
        # A part of the spectrum exists twice while it is shifted.
        extra += 1.5 * c.guide_dim
    if c.upsampling not in ("implicit", "nearest"):
        # Codes of every HR pixel instead of picks in a table; pixel_shuffle makes them at HR size.
        extra += 2 * hidden + (c.upsampling == "pixel_shuffle") * 4 * c.feat_dim
    encoder_halo = 2 * c.spatial_blocks + 2
    minimum: float = encoding + encoding_row * (1 + 2 * encoder_halo)
    transform = 6 * 4 * BUDGET_CHANNELS * height * width
    # The amplitude exists beside the guide; the phase overwrites the guide.
    votes = 4 * pixels * (2 * c.guide_dim + 2 * latent + 18 + geometry + extra)
    phase = 4 * pixels * (c.guide_dim + 4 * latent + 2 + geometry + extra)
    votes, phase = small + transform + votes, small + transform + phase
    phase_row = 4 * width * (2 * inputs + 2 * sum(c.mlp_widths))
    phase_halo = (len(c.mlp_widths) + 1) * (c.frequency_kernel_px // 2)
    if c.fourier_branch:
        minimum = max(minimum, votes, phase + phase_row * (1 + 2 * phase_halo))
    else:
        # One latent map beside the votes' memory, later the residual and the result.
        kept = c.guide_dim + latent + max(18, 2 * c.hsi_bands) + geometry + extra
        minimum = max(minimum, small + 4 * pixels * kept)
    if budget < minimum:
        needed = math.ceil(SLACK * minimum / MIB) + OVERHEAD_MIB
        raise UserError(
            f"found {memory_mib:g}, expected at least {needed} for {batch} image(s) of "
            f"{height}x{width}; raise it, or fuse smaller images",
            "memory_mib",
        )
    encoder_rows = int((budget - encoding) // encoding_row) - 2 * encoder_halo
    phase_rows = int((budget - phase) // phase_row) - 2 * phase_halo
    return Strips(QUERIES, encoder_rows, phase_rows, BUDGET_CHANNELS)


class Buffers:
    """Memory by name that strips write to in turn.

    That of the strip before is still in the processor's cache, which new memory is not.
    """

    def __init__(self) -> None:
        self.largest: dict[Hashable, Tensor] = {}

    def __call__(self, name: Hashable, like: "Tensor", columns: int | None = None) -> "Tensor":
        """Return uninitialised memory of `like`'s rows and type, with its or as many columns."""
        columns = like.shape[1] if columns is None else columns
        key = (name, columns, like.dtype)
        if key not in self.largest or len(self.largest[key]) < len(like):
            self.largest[key] = like.new_empty(len(like), columns)
        return self.largest[key][: len(like)]


def slices(total: int, size: int) -> Iterator[slice]:
    """Return consecutive slices of `size` that cover 0..total."""
    return (slice(i, min(i + size, total)) for i in range(0, total, size))


def halo_strips(rows: int, size: int, halo: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield strips of rows, each with its halo inside the image, and its place in that."""
    for strip in slices(rows, size):
        wide = slice(max(strip.start - halo, 0), min(strip.stop + halo, rows))
        yield strip, wide, slice(strip.start - wide.start, strip.stop - wide.start)


def strip_size(map_QC: "Tensor", size: int | None, on_cpu: int) -> int:
    """Return `size`, or the size on a CPU, or on other devices everything at once."""
    if size is not None:
        return size
    return on_cpu if map_QC.device.type == "cpu" else len(map_QC)
