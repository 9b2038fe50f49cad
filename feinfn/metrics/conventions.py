"""Conventions: PSNR, SAM, ERGAS and SSIM as the codes behind this field's tables define them.

Legend: S bands, H W rows and columns.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from feinfn.errors import require_one_of
from feinfn.metrics.indices import mse_per_band, products, reference_maximum, reference_means
from feinfn.metrics.pieces import Quantities
from feinfn.metrics.windows import ssim_gaussian, ssim_uniform


@dataclass(frozen=True, kw_only=True)
class Convention:
    """A complete definition of the four printed indices; all fields but the texts change numbers.

    The methods take the quantities of two images that have passed `prepare` and that, except for
    SSIM, are cut.
    """

    name: str
    dtype: Literal["float64", "float32"] = "float64"
    """Type to which the images are rounded. The arithmetic is float64 under every convention,
    because float32 sums depend on the machine."""
    levels: int | None = None
    """Images are clipped to [0, 1] and rounded to this many steps, halves to even; None does
    neither."""
    cut_px: int = 0
    """Number of last rows and columns left out of all indices except SSIM."""
    psnr_peak: Literal["1", "maximum of the reference"] = "1"
    """Peak value in PSNR."""
    psnr_mean: Literal["of bands", "of the cube's MSE"] = "of bands"
    """Average that PSNR takes."""
    mse_offset: float = 0.0
    """Added to the MSE inside PSNR: 1e-8 caps it at 80 dB."""
    sam_black: Literal["left out", "NaN", "90 degrees"] = "left out"
    """Treatment of pixels in which either spectrum is zero."""
    sam_epsilon: float = 0.0
    """Added to the product of the norms."""
    sam_decimals: int | None = None
    """Decimals of a radian to which the mean angle is rounded; None does not round."""
    pi: float = math.pi
    """Value of pi that converts radians to degrees."""
    ergas_ratio: int | None = None
    """Ratio in ERGAS in place of the protocol's; None takes the protocol's."""
    ssim_window: Literal["Gaussian 11x11", "uniform 7x7"] = "Gaussian 11x11"
    about: str
    source: str

    @property
    def ssim_px(self) -> int:
        """Side of the SSIM window."""
        return 11 if self.ssim_window == "Gaussian 11x11" else 7

    def prepare(self, image_SHW: Tensor) -> Tensor:
        """Return an image, or a piece of it, in the convention's type and levels, as float64."""
        x = image_SHW.to(getattr(torch, self.dtype)).double()
        if self.levels is None:
            return x
        return (x.clamp(0, 1) * self.levels).round_().div_(self.levels)

    def _decibels(self, mse: Tensor, images: Quantities) -> Tensor:
        peak = images.of(reference_maximum) if self.psnr_peak != "1" else 1.0
        return 10 * torch.log10(peak**2 / (mse + self.mse_offset))

    def psnr_per_band(self, images: Quantities) -> Tensor:
        """Return the PSNR of every band in dB, [S]; inf for a band without error."""
        return self._decibels(images.of(mse_per_band), images)

    def psnr(self, images: Quantities) -> float:
        """Return the PSNR in dB."""
        mse_S = images.of(mse_per_band)
        mse = mse_S if self.psnr_mean == "of bands" else mse_S.mean()
        return self._decibels(mse, images).mean().item()

    def angles(self, images: Quantities) -> Tensor:
        """Return the spectral angle of every pixel in radians, [H, W].

        A pixel without data is NaN, and so is one with a zero spectrum, unless `sam_epsilon` makes
        its angle 90 degrees.
        Cosines that rounding takes beyond 1 count as 1.
        """
        product_HW, norms_HW = images.of(products)
        return torch.acos((product_HW / (norms_HW + self.sam_epsilon)).clamp(-1, 1))

    def sam(self, images: Quantities) -> float:
        """Return the mean spectral angle in degrees; NaN if no pixel is left."""
        angle = self.angles(images)
        if images.valid_HW is not None:
            angle = angle[images.valid_HW]
        mean = (angle.nanmean() if self.sam_black == "left out" else angle.mean()).item()
        return (mean if self.sam_decimals is None else round(mean, self.sam_decimals)) * (
            180 / self.pi
        )

    def ergas(self, images: Quantities, ratio: int) -> float:
        """Return (100 / ratio) sqrt(mean over bands of MSE / mean(reference)^2).

        The ratio is the protocol's, or the convention's if it has one. The index is inf if a
        reference band is all zeros, or NaN if the fused band is too.
        """
        relative = (images.of(mse_per_band) / images.of(reference_means) ** 2).mean()
        return 100 / (self.ergas_ratio or ratio) * relative.sqrt().item()

    def ssim_per_band(self, images: Quantities) -> Tensor:
        """Return the SSIM of every band, [S]."""
        gaussian = self.ssim_window == "Gaussian 11x11"
        return images.of(ssim_gaussian if gaussian else ssim_uniform)


_AS_MATLAB = "Everything not named here is as in matlab (inferred where it is not known otherwise)."

CONVENTIONS: dict[str, Convention] = {
    c.name: c
    for c in [
        Convention(
            name="matlab",
            about="PSNR with peak 1, mean over bands. SAM in degrees, pixels where either spectrum "
            "is zero left out. ERGAS 100 / ratio. SSIM on images x 255 (not rounded), 11x11 "
            "Gaussian of sigma 1.5, K = (0.01, 0.03), no padding, biased variances, mean over "
            "bands. float64, no border cut, no clipping, no rounding.",
            source="the MATLAB package of the released FeINFN code, run under Octave",
        ),
        Convention(
            name="released_python",
            dtype="float32",
            cut_px=1,
            sam_decimals=6,
            pi=3.14159256,
            ergas_ratio=4,
            ssim_window="uniform 7x7",
            about="float32 images. Last row and column left out of all but SSIM. PSNR with peak 1, "
            "mean over bands. SAM rounded to 1e-6 rad, 180 / 3.14159256; NaN adds nothing. ERGAS "
            "100 / 4 at every ratio. SSIM of scikit-image: 7x7 uniform window, sample covariance, "
            "border of 3 pixels left out, data range 1. Inferred: the mean angle is what is "
            "rounded, and black pixels are not in its divisor either (the released values agree "
            "with MATLAB on images with 5 % of them). The released arithmetic is float32 as well; "
            "that moves SAM by up to 1.5e-4 degrees and the rest by less than 1e-6 of their "
            "values, and depends on the order of sums, so float64 stands for it.",
            source="AnalysisPanAcc of the released FeINFN code",
        ),
        Convention(
            name="psrt",
            psnr_peak="maximum of the reference",
            psnr_mean="of the cube's MSE",
            sam_black="NaN",
            ergas_ratio=4,
            about="PSNR peak is the maximum of the reference cube, and one MSE over the cube "
            "(inferred). SAM is NaN where any pixel is black; cosines beyond 1 count as 1 "
            f"(inferred). ERGAS 100 / 4 at every ratio. {_AS_MATLAB}",
            source="shangqideng/PSRT, commit 9c2be90",
        ),
        Convention(
            name="uint8",
            levels=255,
            about="Fused image and reference are clipped to [0, 1] and rounded to 8 bits, halves "
            "to even (inferred), before every index (known of PSNR, inferred for the others). "
            f"{_AS_MATLAB}",
            source="TaoHuang95/DHIF-Net, commit 6434366",
        ),
        Convention(
            name="ergas_100_4",
            ergas_ratio=4,
            about="matlab, but ERGAS 100 / 4 at every ratio: what x8 tables print whose code froze "
            "the ratio (twice the value of matlab).",
            source="OTIAS at x8 and others",
        ),
        Convention(
            name="sfno",
            mse_offset=1e-8,
            sam_black="90 degrees",
            sam_epsilon=1e-8,
            ergas_ratio=4,
            about="1e-8 is added to the MSE of a band, which caps PSNR at 80 dB; peak 1, mean over "
            "bands. SAM adds an epsilon (1e-8 inferred) to the product of the norms, so that a "
            f"black pixel counts as 90 degrees. ERGAS 100 / 4 at every ratio. {_AS_MATLAB}",
            source="weili419/SFNO, commit 156fecb",
        ),
        Convention(
            name="lso",
            ergas_ratio=4,
            about="Black pixels left out of SAM, ERGAS 100 / 4 at every ratio (its docstring says "
            "that the true x8 value is half). PSNR inferred: peak 1, mean over bands. The same "
            f"numbers as ergas_100_4. {_AS_MATLAB}",
            source="weili419/LSO, commit 5bebab0",
        ),
    ]
}


def find_convention(name: str) -> Convention:
    """Return a convention by name; raise `UserError` that suggests the nearest name."""
    require_one_of("convention", name, CONVENTIONS)
    return CONVENTIONS[name]
