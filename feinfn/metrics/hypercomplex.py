"""Q2n: the universal quality index of spectra as hypercomplex numbers.

Legend: N bands padded to a power of two, P pixels of a block, S bands, H W rows and columns.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from feinfn.metrics.pieces import Image


def product_signs(size: int) -> Tensor:
    """Return the signs s [N, N] of the products of units: e_i e_j = s[i, j] e_(i xor j), float64.

    Cayley-Dickson doubling: (a, b) (c, d) = (a c - d* b, d a + b c*); N a power of two.
    """
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    s = product_signs(size // 2)
    conjugate = -torch.ones(size // 2, dtype=torch.float64)
    conjugate[0] = 1
    return torch.cat([torch.cat([s, s.T], 1), torch.cat([s * conjugate, -s.T * conjugate], 1)])


def _strips(images: tuple[Image, ...], side: int) -> Iterator[tuple[Tensor, ...]]:
    """Yield strips of blocks of every image, [S, side, W]; the far borders are mirrored."""
    sizes = (torch.arange(n) for n in images[0].shape[1:])
    rows, columns = (torch.cat([x, x.flip(0)[: -len(x) % side]]) for x in sizes)
    for strip in rows.split(side):
        yield tuple(image[:, strip][:, :, columns] for image in images)


def _blocks(strip_SHW: Tensor, levels: int, side: int) -> Tensor:
    """Return the blocks of a strip in rounded levels, [blocks, N, P]."""
    x = (strip_SHW * levels + 0.5).floor().clamp(min=0)
    bands = len(x)
    x = F.pad(x, (0, 0, 0, 0, 0, (1 << (bands - 1).bit_length()) - bands))
    return x.unfold(2, side, side).permute(2, 0, 1, 3).flatten(2)


def whole_blocks(valid_HW: Tensor, block_px: int = 32) -> Tensor:
    """Return True for every block of `q2n` that holds data everywhere, [blocks]."""
    strips = _strips((valid_HW[None].double(),), block_px)
    return torch.cat([(_blocks(x, 1, block_px) == 1).flatten(1).all(1) for (x,) in strips])


def q2n(
    fused_SHW: Image,
    reference_SHW: Image,
    valid_HW: Tensor | None = None,
    levels: int = 2047,
    block_px: int = 32,
) -> float:
    """Return Q2n (Garzelli and Nencini, IEEE GRSL 2009), the mean over blocks without overlap.

    Images in [0, 1] become integers up to `levels` (halves up, negative values 0), because the
    MATLAB code casts to uint16; levels = 1 would make an image black and white. Each band of a
    block is shifted and scaled by the reference's mean and deviation. A band that is constant only
    in the reference is divided by the machine epsilon, which drives the block to 0. The images are
    mirrored to whole blocks (inferred: repeating their outermost pixels). Blocks that touch pixels
    without data are left out; NaN if none is left.
    """
    qualities = torch.cat(
        [
            _quality(*(_blocks(x, levels, block_px) for x in strip))
            for strip in _strips((fused_SHW, reference_SHW), block_px)
        ]
    )
    if valid_HW is not None:
        qualities = qualities[whole_blocks(valid_HW, block_px)]
    return qualities.mean().item()


def _quality(b: Tensor, a: Tensor) -> Tensor:
    """Return the quality of blocks b against those of the reference a, both [blocks, N, P]."""
    size, eps = a.shape[1], torch.finfo(torch.float64).eps
    units = torch.arange(size, device=a.device)
    pairs = units ^ units[:, None]
    signs = product_signs(size).to(a.device)[units, pairs]
    mean, deviation = a.mean(2, keepdim=True), a.std(2, keepdim=True)
    scale = torch.where(deviation == 0, eps, deviation)
    a = (a - mean) / scale + 1
    b = torch.where(mean == 0, b, (b - mean) / scale) + 1
    b[:, 1:] *= -1
    mean_a, mean_b = a.mean(2, keepdim=True), b.mean(2, keepdim=True)
    a, b = a - mean_a, b - mean_b
    norm_a, norm_b = mean_a.norm(dim=(1, 2)), mean_b.norm(dim=(1, 2))
    bias = 2 * norm_a * norm_b / (norm_a**2 + norm_b**2)
    spread = (a * a).sum((1, 2)) + (b * b).sum((1, 2))
    # The mean of a product is bilinear, so one matrix of moments gives all products.
    products = (signs * (a @ b.mT)[:, units, pairs]).sum(2)
    return torch.where(spread == 0, bias, bias * 2 * products.norm(dim=1) / spread)
