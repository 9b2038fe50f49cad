"""Degradation operators: models of a sensor, each with the adjoint of its linear part.

Every operator maps [B, S, H, W] of any floating type on any device and is differentiable. For a
linear operator A, <A x, y> = <x, A.adjoint(y, size of x)>.

Legend: B batch, S bands, M MSI bands, H W rows and columns.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from feinfn.errors import UserError, require
from feinfn.fields import Count, Finite, Positive, check, check_fields
from feinfn.protocols.filters import filter_bands, filter_window, gaussian_taps
from feinfn.protocols.protocol import Bits, Border

Size = tuple[int, int]

PAD_MODES = {b: b for b in ("reflect", "replicate", "circular")} | {"zero": "constant"}
"""Borders and their names in torch; scipy.ndimage calls them mirror, nearest, wrap and constant."""


class Operator(ABC):
    """A degradation; by default it keeps the size and its linear part is the identity."""

    def __post_init__(self) -> None:
        check_fields(self)

    @abstractmethod
    def __call__(self, x_BSHW: Tensor) -> Tensor:
        """Return the degraded image."""

    def out_size(self, size_HW: Size) -> Size:
        """Return rows and columns of the degraded image for an image of `size_HW`."""
        return size_HW

    def adjoint(self, y_BSHW: Tensor, size_HW: Size) -> Tensor:
        """Apply the adjoint of the linear part; `size_HW` is the size before degradation."""
        return y_BSHW


@dataclass(frozen=True, eq=False)
class Blur(Operator):
    """Convolution of every band with a PSF; the size stays.

    The kernel's centre is tap n // 2 of 0 ... n-1 (as in scipy.ndimage.convolve), so an even PSF of
    n taps reaches n/2 - 1 pixels up and left and n/2 down and right: sampled at row n/2 - 1, it
    covers rows 0 ... n-1. Raises `UserError` if the image is too small for the border.
    """

    kernel: Tensor
    """[rows, columns], or [taps] of a separable PSF with equal sides."""
    border: Border = "zero"
    """Values outside the image: 0 (zero), mirrored without repeating the edge pixel (reflect), the
    edge pixel (replicate) or the opposite side (circular)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = tuple(self.kernel.shape)
        good = self.kernel.ndim in (1, 2) and 0 not in shape
        require(good, "kernel", shape, "a shape [taps] or [rows, columns]")
        finite = bool(torch.isfinite(self.kernel).all())
        require(finite, "kernel", "NaN or inf", "finite numbers")

    @classmethod
    def gaussian(cls, size_px: int, sigma_px: float, border: Border = "zero") -> "Blur":
        """Return a Gaussian PSF of `size_px` taps per side, sampled about their middle, sum 1."""
        check("size_px", size_px, Count)
        check("sigma_px", sigma_px, Positive)
        return cls(gaussian_taps(size_px, sigma_px), border)

    @classmethod
    def box(cls, size_px: int, border: Border = "zero") -> "Blur":
        """Return the mean over `size_px` x `size_px` pixels."""
        check("size_px", size_px, Count)
        return cls(torch.full((size_px,), 1 / size_px, dtype=torch.float64), border)

    def check_fits(self, size_HW: Size) -> None:
        """Raise `UserError` if an image is too small for the border."""
        height, width = size_HW
        rows, cols = self.kernel.shape[0], self.kernel.shape[-1]
        # Mirroring skips the edge pixel, so it needs one pixel more; torch wraps around only once.
        spare = {"reflect": 1, "circular": 0}.get(self.border)
        if spare is not None and (rows // 2 + spare > height or cols // 2 + spare > width):
            raise UserError(
                f"border: found {self.border!r} with a PSF of {rows}x{cols} on an image of "
                f"{height}x{width}, expected an image of at least {rows // 2 + spare}x"
                f"{cols // 2 + spare}; use a larger image, a smaller PSF or the border 'zero'"
            )

    def __call__(self, x_BSHW: Tensor) -> Tensor:
        self.check_fits((x_BSHW.shape[-2], x_BSHW.shape[-1]))
        rows, cols = self.kernel.shape[0], self.kernel.shape[-1]
        pads = [(cols - 1) // 2, cols // 2, (rows - 1) // 2, rows // 2]
        padded = F.pad(x_BSHW, pads, mode=PAD_MODES[self.border])
        return _correlate(padded, self.kernel.flip(tuple(range(self.kernel.ndim))))

    def adjoint(self, y_BSHW: Tensor, size_HW: Size) -> Tensor:
        rows, cols = self.kernel.shape[0], self.kernel.shape[-1]
        x = F.pad(y_BSHW, [cols - 1, cols - 1, rows - 1, rows - 1])
        x = _correlate(x, self.kernel)
        for dim, taps in ((-2, rows), (-1, cols)):
            x = self._fold(x, dim, size_HW[dim], taps)
        return x

    def _fold(self, x_BSHW: Tensor, dim: int, size: int, taps: int) -> Tensor:
        """Add the border to the pixels it was copied from: the adjoint of padding."""
        # Pixels are numbered from 1; the sums of a zero border collect in 0 and are dropped.
        pixels = torch.arange(1.0, size + 1, device=x_BSHW.device).view(1, 1, -1)
        pads = [(taps - 1) // 2, taps // 2]
        origin = F.pad(pixels, pads, mode=PAD_MODES[self.border]).flatten().long()
        shape = list(x_BSHW.shape)
        shape[dim] = size + 1
        return x_BSHW.new_zeros(shape).index_add(dim, origin, x_BSHW).narrow(dim, 1, size)


def _correlate(x_BSHW: Tensor, kernel: Tensor) -> Tensor:
    if kernel.ndim == 1:
        return filter_bands(x_BSHW, kernel)
    return filter_window(x_BSHW, kernel, padding=0)


@dataclass(frozen=True)
class Decimate(Operator):
    """Sampling of every `ratio`-th row and column from `row` and `col` on, for any image size."""

    ratio: Count
    row: int = 0
    col: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("row", "col"):
            phase, expected = getattr(self, name), f"from 0 to {self.ratio - 1} (ratio - 1)"
            require(0 <= phase < self.ratio, name, phase, expected)

    def out_size(self, size_HW: Size) -> Size:
        height, width = size_HW
        rows, cols = range(self.row, height, self.ratio), range(self.col, width, self.ratio)
        if not (rows and cols):
            raise UserError(
                f"image: found {height}x{width}, expected more than {self.row} rows and {self.col} "
                "columns, the start of sampling; use a larger image or a smaller ratio"
            )
        return len(rows), len(cols)

    def __call__(self, x_BSHW: Tensor) -> Tensor:
        self.out_size((x_BSHW.shape[-2], x_BSHW.shape[-1]))
        return x_BSHW[..., self.row :: self.ratio, self.col :: self.ratio].contiguous()

    def adjoint(self, y_BSHW: Tensor, size_HW: Size) -> Tensor:
        x = y_BSHW.new_zeros(*y_BSHW.shape[:-2], *size_HW)
        x[..., self.row :: self.ratio, self.col :: self.ratio] = y_BSHW
        return x


@dataclass(frozen=True, eq=False)
class SpectralResponse(Operator):
    """Weighted sums of the S bands of every pixel, one for each of M bands.

    `feinfn.protocols.response` resamples tables to such matrices.
    """

    matrix: Tensor
    """Weights [M, S]."""

    def __post_init__(self) -> None:
        shape = tuple(self.matrix.shape)
        require(self.matrix.ndim == 2 and 0 not in shape, "matrix", shape, "a shape [M, S]")

    def __call__(self, x_BSHW: Tensor) -> Tensor:
        bands, expected = x_BSHW.shape[1], self.matrix.shape[1]
        if bands != expected:
            raise UserError(
                f"image: found {bands} bands, expected {expected}, as many as the spectral "
                "response has; choose other data or another response"
            )
        return torch.einsum("ms,bshw->bmhw", self.matrix.to(x_BSHW), x_BSHW).contiguous()

    def adjoint(self, y_BMHW: Tensor, size_HW: Size) -> Tensor:
        return torch.einsum("ms,bmhw->bshw", self.matrix.to(y_BMHW), y_BMHW).contiguous()


@dataclass(frozen=True)
class Noise(Operator):
    """White Gaussian noise, added without clipping.

    The SNR of a band is its mean square over the noise's variance, per image. Image b of a batch
    draws from entry b of `seed`; an integer stands for seed, seed + 1, ... Equal seeds give equal
    noise on every device. The gradient treats the noise as a constant.
    """

    snr_db: Finite | tuple[Finite, ...]
    """SNR in dB: one number, or one per band."""
    seed: int | tuple[int, ...] = 0
    valid_HW: Tensor | None = field(default=None, compare=False)
    """False for pixels without data, which do not count in the mean square; None counts all."""

    def __call__(self, x_BSHW: Tensor) -> Tensor:
        batch, bands = x_BSHW.shape[:2]
        snr_db = torch.tensor(self.snr_db).to(x_BSHW).view(-1, 1, 1)
        require(len(snr_db) in (1, bands), "snr_db", len(snr_db), f"1 or {bands} numbers")
        seeds = range(self.seed, self.seed + batch) if isinstance(self.seed, int) else self.seed
        require(len(seeds) == batch, "seed", len(seeds), f"{batch} seeds, one per image")
        power = x_BSHW.detach().square()
        if self.valid_HW is not None:
            power = power[..., self.valid_HW.to(power.device)][..., None]
        power_BS11 = power.mean(dim=(-2, -1), keepdim=True)
        sigma_BS11 = (power_BS11 / 10 ** (snr_db / 10)).sqrt()
        return x_BSHW + sigma_BS11 * _normal(x_BSHW, seeds)


def _normal(like_BSHW: Tensor, seeds: Sequence[int]) -> Tensor:
    # Always drawn in float32 on the CPU, so that a seed gives the same noise on every device.
    noise = torch.empty(like_BSHW.shape, dtype=torch.float32)
    for image_SHW, seed in zip(noise, seeds, strict=True):
        image_SHW.normal_(generator=torch.Generator().manual_seed(seed))
    return noise.to(like_BSHW)


@dataclass(frozen=True)
class Quantise(Operator):
    """Rounding to 2**bits levels from 0 to 1, clipped there like a saturating sensor.

    The gradient passes straight through, as if nothing were rounded.
    """

    bits: Bits

    def __call__(self, x_BSHW: Tensor) -> Tensor:
        top = 2**self.bits - 1
        rounded = (x_BSHW.detach().clamp(0, 1) * top).round() / top
        # Exactly `rounded`, because x - x is 0 for every finite x.
        return rounded + (x_BSHW - x_BSHW.detach())


@dataclass(frozen=True)
class Chain(Operator):
    """Several operators, applied in order."""

    operators: tuple[Operator, ...]

    def out_size(self, size_HW: Size) -> Size:
        for operator in self.operators:
            size_HW = operator.out_size(size_HW)
        return size_HW

    def __call__(self, x_BSHW: Tensor) -> Tensor:
        for operator in self.operators:
            x_BSHW = operator(x_BSHW)
        return x_BSHW

    def adjoint(self, y_BSHW: Tensor, size_HW: Size) -> Tensor:
        sizes = [size_HW]
        for operator in self.operators[:-1]:
            sizes.append(operator.out_size(sizes[-1]))
        for operator, size in zip(reversed(self.operators), reversed(sizes), strict=True):
            y_BSHW = operator.adjoint(y_BSHW, size)
        return y_BSHW
