"""Conventions: PSNR, SAM, ERGAS and SSIM as the codes behind this field's tables define them.

Legend: S bands, H W rows and columns.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from feinfn.errors import UserError, require_one_of
from feinfn.metrics.indices import (
    angles,
    ergas,
    mean_over,
    mse_per_band,
    ssim_gaussian,
    whole_windows,
)

CONVENTION = "matlab"
"""Convention of every number that does not name another."""


@dataclass(frozen=True, kw_only=True)
class Convention:
    """A complete definition of the four printed indices; all fields but the texts change numbers.

    The methods take images [S, H, W] that have passed `prepare` and, except for SSIM, `cut`.
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
        """Return the image in the convention's type and levels, as float64."""
        x = image_SHW.to(getattr(torch, self.dtype)).double()
        return x if self.levels is None else (x.clamp(0, 1) * self.levels).round() / self.levels

    def cut(self, image_SHW: Tensor) -> Tensor:
        """Return the image without the rows and columns that the convention leaves out."""
        height, width = image_SHW.shape[1:]
        return image_SHW[:, : height - self.cut_px, : width - self.cut_px]

    def _decibels(self, mse: Tensor, reference_SHW: Tensor) -> Tensor:
        peak = reference_SHW.max() if self.psnr_peak != "1" else 1.0
        return 10 * torch.log10(peak**2 / (mse + self.mse_offset))

    def psnr_per_band(self, fused_SHW: Tensor, reference_SHW: Tensor) -> Tensor:
        """Return the PSNR of every band in dB, [S]; inf for a band without error."""
        return self._decibels(mse_per_band(fused_SHW, reference_SHW), reference_SHW)

    def psnr(self, fused_SHW: Tensor, reference_SHW: Tensor) -> float:
        """Return the PSNR in dB."""
        mse_S = mse_per_band(fused_SHW, reference_SHW)
        mse = mse_S if self.psnr_mean == "of bands" else mse_S.mean()
        return self._decibels(mse, reference_SHW).mean().item()

    def angles(self, fused_SHW: Tensor, reference_SHW: Tensor) -> Tensor:
        """Return the spectral angle of every pixel in radians, [H, W].

        A pixel with a zero spectrum is NaN, unless `sam_epsilon` makes its angle 90 degrees.
        """
        return angles(fused_SHW, reference_SHW, self.sam_epsilon)

    def sam(self, fused_SHW: Tensor, reference_SHW: Tensor) -> float:
        """Return the mean spectral angle in degrees; NaN if no pixel is left."""
        angle = self.angles(fused_SHW, reference_SHW)
        mean = (angle.nanmean() if self.sam_black == "left out" else angle.mean()).item()
        return (mean if self.sam_decimals is None else round(mean, self.sam_decimals)) * (
            180 / self.pi
        )

    def ergas(self, fused_SHW: Tensor, reference_SHW: Tensor, ratio: int) -> float:
        """Return ERGAS for the protocol's ratio, or for the convention's if it has one."""
        return ergas(fused_SHW, reference_SHW, self.ergas_ratio or ratio)

    def ssim_per_band(
        self, fused_SHW: Tensor, reference_SHW: Tensor, valid_HW: Tensor | None = None
    ) -> Tensor:
        """Return the SSIM of every band, [S], without windows that touch pixels without data."""
        if self.ssim_window == "Gaussian 11x11":
            return ssim_gaussian(fused_SHW, reference_SHW, valid_HW)
        try:
            from skimage.metrics import structural_similarity
        except ImportError:
            raise UserError(
                f"convention {self.name}: its SSIM is scikit-image's, which is not installed; "
                "install scikit-image or name another convention"
            ) from None
        bands = zip(fused_SHW.cpu().numpy(), reference_SHW.cpu().numpy(), strict=True)
        if valid_HW is None:
            values = [structural_similarity(a, b, data_range=1.0) for a, b in bands]
            return torch.tensor(values, dtype=torch.float64)
        kept, edge = whole_windows(valid_HW, self.ssim_px), self.ssim_px // 2
        inner = slice(edge, -edge)
        maps = (structural_similarity(a, b, data_range=1.0, full=True)[1] for a, b in bands)
        return torch.stack([mean_over(torch.from_numpy(x[inner, inner]), kept) for x in maps])


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
