"""Indices without a reference, for an HSI fused from an LR-HSI and an MSI.

torchmetrics has D_lambda, D_S and QNR too, but with an 11x11 Gaussian at every pixel instead of
blocks (minutes for 100 bands), with the same window in pixels at both scales, and for one
panchromatic image. Here blocks cover the same ground at both scales, and D_S compares every band
with every MSI band.

Legend: S bands, M MSI bands, h w LR size, H W HR size, B blocks, P pixels of a block.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from feinfn.errors import UserError
from feinfn.metrics.windows import universal_quality


def _blocks(image_SHW: Tensor, side: int) -> Tensor:
    """Return whole blocks row by row, [rows, columns, S, P] float64.

    Pixels at the far borders that fill no block are left out.
    """
    tiles = image_SHW.double().unfold(1, side, side).unfold(2, side, side)
    return tiles.flatten(3).permute(1, 2, 0, 3)


def pairwise_quality(
    x_SHW: Tensor, y_MHW: Tensor, block_px: int, kept: Tensor | None = None
) -> Tensor:
    """Return the universal quality index of every band of x with every band of y, [S, M].

    It is the mean over blocks without overlap, or over those `kept`, [rows, columns]; one matrix of
    moments gives all pairs of a block.
    """
    x_blocks, y_blocks = _blocks(x_SHW, block_px), _blocks(y_MHW, block_px)
    if kept is not None:
        x_blocks, y_blocks = x_blocks[kept][None], y_blocks[kept][None]
    total = torch.zeros(len(x_SHW), len(y_MHW), dtype=torch.float64, device=x_SHW.device)
    for x_BSP, y_BMP in zip(x_blocks, y_blocks, strict=True):
        x_squares = (x_BSP**2).mean(2)[:, :, None]
        y_squares = (y_BMP**2).mean(2)[:, None]
        quality_BSM = universal_quality(
            x_BSP.mean(2)[:, :, None],
            y_BMP.mean(2)[:, None],
            x_squares + y_squares,
            x_BSP @ y_BMP.transpose(1, 2) / block_px**2,
        )
        total += quality_BSM.sum(0)
    return total / (x_blocks.shape[0] * x_blocks.shape[1])


def qnr(
    fused_SHW: Tensor,
    lr_hsi_Shw: Tensor,
    msi_MHW: Tensor,
    block_px: int = 32,
    valid_HW: Tensor | None = None,
) -> dict[str, float]:
    """Return `d_lambda`, `d_s` and `qnr` = (1 - d_lambda) (1 - d_s); their best values are 0, 0, 1.

    d_lambda is the mean over band pairs of |Q(fused i, fused j) - Q(LR i, LR j)|. d_s is the mean
    over bands and MSI bands of |Q(fused i, MSI m) - Q(LR i, LR MSI m)|. Both exponents are 1
    (Alparone et al., PE&RS 2008). Inferred for HSI and MSI: blocks of `block_px` HR pixels against
    the same ground at LR, all pairs of bands in d_s, and an LR MSI of cell means. Blocks that touch
    pixels without data are left out; NaN if none is left.
    Raises `UserError` if shapes or the block do not fit, and for NaN.
    """
    ratio = fused_SHW.shape[-1] // max(lr_hsi_Shw.shape[-1], 1)
    bands, *lr_size = lr_hsi_Shw.shape
    if tuple(fused_SHW.shape) != (bands, *(ratio * n for n in lr_size)) or ratio < 1:
        raise UserError(
            f"qnr: found a fused image of shape {tuple(fused_SHW.shape)} and an LR-HSI of shape "
            f"{tuple(lr_hsi_Shw.shape)}, expected the same bands and a whole ratio of sizes"
        )
    if msi_MHW.shape[1:] != fused_SHW.shape[1:]:
        raise UserError(
            f"qnr: found an MSI of shape {tuple(msi_MHW.shape)}, expected the size of the fused "
            f"image, {tuple(fused_SHW.shape[1:])}"
        )
    if block_px % ratio or block_px // ratio < 2 or min(fused_SHW.shape[1:]) < block_px:
        raise UserError(
            f"qnr: found blocks of {block_px} pixels for an image of {fused_SHW.shape[1]}x"
            f"{fused_SHW.shape[2]} at ratio {ratio}, expected a multiple of the ratio, at least "
            f"{2 * ratio} and at most the image"
        )
    if not all(bool(torch.isfinite(x).all()) for x in (fused_SHW, lr_hsi_Shw, msi_MHW)):
        raise UserError("qnr: found NaN or inf in an image, expected finite reflectances")
    lr_msi_Mhw = F.avg_pool2d(msi_MHW.double(), ratio)
    lr_px = block_px // ratio
    kept = None if valid_HW is None else _blocks(valid_HW[None], block_px)[:, :, 0].all(-1)
    spectral = pairwise_quality(fused_SHW, fused_SHW, block_px, kept)
    spectral -= pairwise_quality(lr_hsi_Shw, lr_hsi_Shw, lr_px, kept)
    spatial = pairwise_quality(fused_SHW, msi_MHW, block_px, kept)
    spatial -= pairwise_quality(lr_hsi_Shw, lr_msi_Mhw, lr_px, kept)
    # The diagonal is 0, so only the divisor must leave out a band's pair with itself.
    d_lambda = (spectral.abs().sum() / max(bands * (bands - 1), 1)).item()
    d_s = spatial.abs().mean().item()
    return {"d_lambda": d_lambda, "d_s": d_s, "qnr": (1 - d_lambda) * (1 - d_s)}
