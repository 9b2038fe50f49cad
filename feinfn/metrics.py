"""Image quality indices in the `matlab` convention, the one this field's tables are printed in.

float64, no border cut, no clipping; images [S, H, W] with peak 1; the reference comes second.
"""

import math

import torch
from torch import Tensor

from feinfn.errors import UserError
from feinfn.filters import filter_bands, gaussian_taps, ssim_map

CONVENTION = "matlab"
METRICS = ("psnr", "sam", "ergas", "ssim")
HIGHER_IS_BETTER = {"psnr": True, "sam": False, "ergas": False, "ssim": True}


def psnr_per_band(fused: Tensor, reference: Tensor) -> Tensor:
    """Return 10 log10(1 / MSE) of every band in dB, [S]; inf for a band without error."""
    mse = ((fused.double() - reference.double()) ** 2).mean(dim=(1, 2))
    return -10 * torch.log10(mse)


def ssim_per_band(fused: Tensor, reference: Tensor) -> Tensor:
    """Return the SSIM of every band, [S]: images times 255, 11x11 Gaussian, 'valid' border."""
    a, b = fused.double()[None] * 255, reference.double()[None] * 255
    taps = gaussian_taps(11, 1.5)
    return ssim_map(a, b, lambda x: filter_bands(x, taps), peak=255.0).mean(dim=(2, 3))[0]


def sam(fused: Tensor, reference: Tensor) -> float:
    """Return the mean spectral angle in degrees.

    Pixels where either spectrum is zero are left out; cosines above 1 by rounding count as 0.
    """
    a, b = fused.double(), reference.double()
    norms = (a * a).sum(0) * (b * b).sum(0)
    seen = norms > 0
    cosine = (a * b).sum(0)[seen] / norms[seen].sqrt()
    return math.degrees(torch.acos(cosine.clamp(-1, 1)).mean().item())


def ergas(fused: Tensor, reference: Tensor, ratio: int) -> float:
    """Return ERGAS, (100 / ratio) sqrt(mean over bands of MSE / mean(reference)^2)."""
    a, b = fused.double(), reference.double()
    mse = ((a - b) ** 2).mean(dim=(1, 2))
    return 100 / ratio * math.sqrt((mse / b.mean(dim=(1, 2)) ** 2).mean().item())


def evaluate(fused: Tensor, reference: Tensor, ratio: int) -> dict[str, float]:
    """Return PSNR (dB), SAM (degrees), ERGAS and SSIM of one image.

    Args: fused, reference [S, H, W] in [0, 1], at least 11x11; ratio of the protocol.
    Raises `UserError` for shapes that differ or NaN.
    """
    if fused.shape != reference.shape or fused.dim() != 3 or min(fused.shape[1:]) < 11:
        raise UserError(
            f"metrics: found shapes {tuple(fused.shape)} and {tuple(reference.shape)}, expected "
            "two equal shapes [bands, rows, columns] of at least 11x11 pixels"
        )
    if not bool(torch.isfinite(fused).all() and torch.isfinite(reference).all()):
        raise UserError("metrics: found NaN or inf in an image, expected finite reflectances")
    return {
        "psnr": psnr_per_band(fused, reference).mean().item(),
        "sam": sam(fused, reference),
        "ergas": ergas(fused, reference, ratio),
        "ssim": ssim_per_band(fused, reference).mean().item(),
    }
