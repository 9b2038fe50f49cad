"""Q2n: the universal quality index of spectra as hypercomplex numbers.

Legend: N bands padded to a power of two, P pixels of a block, S bands, H W rows and columns.
"""

import math

import torch
from torch import Tensor


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


def _tiles(image_SHW: Tensor, levels: int, side: int) -> Tensor:
    """Return blocks [blocks, N, P] of rounded levels; the far borders are mirrored into them."""
    x = (image_SHW * levels + 0.5).floor().clamp(min=0)
    x = torch.cat([x, x.flip(1)[:, : -x.shape[1] % side]], dim=1)
    x = torch.cat([x, x.flip(2)[:, :, : -x.shape[2] % side]], dim=2)
    bands = len(x)
    size = 1 << (bands - 1).bit_length()
    x = torch.cat([x, x.new_zeros(size - bands, *x.shape[1:])])
    return x.unfold(1, side, side).unfold(2, side, side).flatten(3).flatten(1, 2).transpose(0, 1)


def whole_blocks(valid_HW: Tensor, block_px: int = 32) -> Tensor:
    """Return True for every block of `q2n` that holds data everywhere, [blocks]."""
    return (_tiles(valid_HW[None].double(), 1, block_px) == 1).flatten(1).all(1)


def q2n(
    fused_SHW: Tensor,
    reference_SHW: Tensor,
    levels: int = 2047,
    block_px: int = 32,
    valid_HW: Tensor | None = None,
) -> float:
    """Return Q2n (Garzelli and Nencini, IEEE GRSL 2009), the mean over blocks without overlap.

    Images in [0, 1] become integers up to `levels` (halves up, negative values 0), because the
    MATLAB code casts to uint16; levels = 1 would make an image black and white. Each band of a
    block is shifted and scaled by the reference's mean and deviation. A band that is constant only
    in the reference is divided by the machine epsilon, which drives the block to 0. The images are
    mirrored to whole blocks (inferred: repeating their outermost pixels). Blocks that touch pixels
    without data are left out; NaN if none is left.
    """
    eps = torch.finfo(torch.float64).eps
    values = []
    signs = None
    fused, reference = (_tiles(x, levels, block_px) for x in (fused_SHW, reference_SHW))
    if valid_HW is not None:
        whole = whole_blocks(valid_HW, block_px)
        fused, reference = fused[whole], reference[whole]
    if not len(fused):
        return math.nan
    for b, a in zip(fused, reference, strict=True):
        if signs is None:
            size = len(a)
            units = torch.arange(size, device=a.device)
            pairs = units ^ units[:, None]
            signs = product_signs(size).to(a.device)[units, pairs]
        mean_N1 = a.mean(1, keepdim=True)
        deviation_N1 = a.std(1, keepdim=True)
        scale_N1 = torch.where(deviation_N1 == 0, eps, deviation_N1)
        a = (a - mean_N1) / scale_N1 + 1
        b = torch.where(mean_N1 == 0, b, (b - mean_N1) / scale_N1) + 1
        b[1:] *= -1
        mean_a, mean_b = a.mean(1, keepdim=True), b.mean(1, keepdim=True)
        a, b = a - mean_a, b - mean_b
        norm_a, norm_b = mean_a.norm(), mean_b.norm()
        bias = 2 * norm_a * norm_b / (norm_a**2 + norm_b**2)
        spread = (a * a).sum() + (b * b).sum()
        # The mean of a product is bilinear, so one matrix of moments gives all products.
        product_N = (signs * (a @ b.T)[units, pairs]).sum(1)
        values.append(bias if spread == 0 else bias * 2 * product_N.norm() / spread)
    return torch.stack(values).mean().item()
