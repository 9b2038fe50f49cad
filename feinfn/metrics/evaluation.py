"""Evaluation of one image under a convention: indices, indices per band, and error maps.

Legend: S bands, H W rows and columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from feinfn.errors import UserError, require_one_of
from feinfn.metrics.conventions import CONVENTIONS, Convention, find_convention
from feinfn.metrics.hypercomplex import q2n, whole_blocks
from feinfn.metrics.indices import cc_per_band, mean_error, mse_per_band, scc
from feinfn.metrics.label import CONVENTION, LABELS, METRICS
from feinfn.metrics.pieces import Quantities, Seen
from feinfn.metrics.windows import uiqi_per_band, whole_windows


@dataclass(frozen=True)
class Index:
    """An index of a fused image and its reference under a convention."""

    value: Callable[[Convention, Quantities, int], float] | None = None
    """Value at a ratio; None: the mean over bands."""
    per_band: Callable[[Convention, Quantities], Tensor] | None = None
    """Value of every band, [S], if it has one."""
    side_px: int = 1
    """Shortest side of an image for which it is defined; that of SSIM is the convention's."""
    windows: bool = False
    """Made of windows, so that those which touch pixels without data are left out."""

    def of(self, rule: Convention, images: Quantities, ratio: int) -> float:
        """Return the index of two images as the convention sees them."""
        if self.value is not None:
            return self.value(rule, images, ratio)
        assert self.per_band is not None, "an index has a value, or one for every band"
        return self.per_band(rule, images).mean().item()


INDICES: dict[str, Index] = {
    "psnr": Index(lambda rule, images, ratio: rule.psnr(images), Convention.psnr_per_band),
    "sam": Index(lambda rule, images, ratio: rule.sam(images)),
    "ergas": Index(Convention.ergas),
    "ssim": Index(per_band=Convention.ssim_per_band, windows=True),
    "rmse": Index(
        lambda rule, images, ratio: images.of(mse_per_band).mean().sqrt().item(),
        lambda rule, images: images.of(mse_per_band).sqrt(),
    ),
    "cc": Index(per_band=lambda rule, images: images.of(cc_per_band)),
    "scc": Index(lambda rule, images, ratio: images.of(scc), side_px=3, windows=True),
    "uiqi": Index(per_band=lambda rule, images: images.of(uiqi_per_band), side_px=32, windows=True),
    "q2n": Index(lambda rule, images, ratio: images.of(q2n), side_px=32, windows=True),
}
"""Every index with a reference by name; one more is one entry here, and its label."""
PER_BAND = {name: index.per_band for name, index in INDICES.items() if index.per_band}
ALL_INDICES = tuple(INDICES)


def smallest_px(index: str, convention: str = CONVENTION) -> int:
    """Return the shortest image side for which an index is defined."""
    rule = find_convention(convention)
    # SSIM alone sees whole images.
    return rule.ssim_px if index == "ssim" else INDICES[index].side_px + rule.cut_px


class Comparison:
    """One fused image and its reference: what conventions and indices share is computed once."""

    def __init__(
        self, fused_SHW: Tensor, reference_SHW: Tensor, valid_HW: Tensor | None = None
    ) -> None:
        """Take two images with peak 1; `valid_HW` is False for pixels without data.

        They are left out together with every window that touches one. Raises `UserError` for
        different shapes and for NaN.
        """
        if fused_SHW.shape != reference_SHW.shape or fused_SHW.dim() != 3 or 0 in fused_SHW.shape:
            raise UserError(
                f"metrics: found shapes {tuple(fused_SHW.shape)} and "
                f"{tuple(reference_SHW.shape)}, expected two equal shapes [bands, rows, columns]"
            )
        if not all(bool(torch.isfinite(x).all()) for x in (fused_SHW, reference_SHW)):
            raise UserError("metrics: found NaN or inf in an image, expected finite reflectances")
        self._images, self._valid_HW = (fused_SHW, reference_SHW), valid_HW
        self._quantities: dict[tuple[Any, ...], Quantities] = {}

    def evaluate(
        self, ratio: int, convention: str = CONVENTION, indices: Sequence[str] = METRICS
    ) -> dict[str, float]:
        """Return indices of `ALL_INDICES` at the protocol's ratio.

        CC, SSIM and UIQI are means over bands; RMSE is that of the cube. Raises `UserError` for an
        unknown convention or index, and images smaller than an index's window.
        """
        rule = self._rule(convention, indices, ALL_INDICES)
        return {name: INDICES[name].of(rule, self._seen(rule, name), ratio) for name in indices}

    def per_band(
        self, convention: str = CONVENTION, indices: Sequence[str] = tuple(PER_BAND)
    ) -> dict[str, Tensor]:
        """Return indices of every band, each [S] float64; errors as in `evaluate`."""
        rule = self._rule(convention, indices, tuple(PER_BAND))
        return {name: PER_BAND[name](rule, self._seen(rule, name)) for name in indices}

    def maps(self, convention: str = CONVENTION) -> dict[str, Tensor]:
        """Return error maps as the convention cuts the image, both [H, W] float64.

        `sam_deg` is the spectral angle in degrees, NaN for pixels that are left out; `error` is the
        absolute error averaged over bands, NaN without data. Errors as in `evaluate`.
        """
        rule = self._rule(convention, (), ())
        seen = self._seen(rule)
        return {"sam_deg": torch.rad2deg(rule.angles(seen)), "error": seen.of(mean_error)}

    def _rule(self, convention: str, indices: Sequence[str], known: Sequence[str]) -> Convention:
        """Return the convention by name; raise `UserError` if it or an index cannot be computed."""
        for name in indices:
            require_one_of("indices", name, known, "some of ")
        rule = find_convention(convention)
        height, width = self._images[0].shape[1:]
        needed = {name: smallest_px(name, convention) for name in indices}
        for name, side in (needed or {"maps": 1 + rule.cut_px}).items():
            if min(height, width) < side:
                raise UserError(
                    f"metrics: found images of {height}x{width} pixels, expected at least "
                    f"{side}x{side} for {name} under {convention}; evaluate larger images or "
                    "leave it out"
                )
        return rule

    def _seen(self, rule: Convention, index: str = "") -> Quantities:
        """Return the images as a convention sees and cuts them; SSIM alone sees whole images."""
        cut_px = 0 if index == "ssim" else rule.cut_px
        # Rounding to float32 does not change float32 images.
        dtype = rule.dtype if any(x.dtype == torch.float64 for x in self._images) else "float32"
        key = dtype, rule.levels, cut_px
        if key not in self._quantities:
            height, width = (n - cut_px for n in self._images[0].shape[1:])
            fused, reference = (Seen(x[:, :height, :width], rule.prepare) for x in self._images)
            valid = None if self._valid_HW is None else self._valid_HW[:height, :width]
            self._quantities[key] = Quantities(fused, reference, valid)
        return self._quantities[key]


def windows_left_out(valid_HW: Tensor, indices: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return, for indices of windows, how many touch pixels without data, and how many there are.

    Counted under the convention of every number that does not name another.
    """
    counts = {}
    for name in (name for name in indices if INDICES[name].windows):
        windows = whole_windows(valid_HW, smallest_px(name))
        kept = whole_blocks(valid_HW) if name == "q2n" else windows
        counts[name] = int((~kept).sum()), kept.numel()
    return counts


def left_out_words(valid_HW: Tensor, indices: Sequence[str]) -> str:
    """Return a sentence about what indices leave out of an image that has pixels without data."""
    missing, total = int((~valid_HW).sum()), valid_HW.numel()
    counts = windows_left_out(valid_HW, indices).items()
    windows = ", ".join(f"{LABELS[name].name} {n} of {m}" for name, (n, m) in counts)
    return (
        f"{missing} of {total} pixels have no data and are left out"
        f"{', and the windows that touch them: ' * bool(windows)}{windows}"
    )


def evaluate(
    fused_SHW: Tensor,
    reference_SHW: Tensor,
    ratio: int,
    convention: str = CONVENTION,
    indices: Sequence[str] = METRICS,
    valid_HW: Tensor | None = None,
) -> dict[str, float]:
    """Return indices of one image: by default PSNR (dB), SAM (degrees), ERGAS and SSIM.

    Arguments and errors are those of `Comparison` and of its `evaluate`.
    """
    return Comparison(fused_SHW, reference_SHW, valid_HW).evaluate(ratio, convention, indices)


def compare(
    fused_SHW: Tensor,
    reference_SHW: Tensor,
    ratio: int,
    conventions: Sequence[str] = tuple(CONVENTIONS),
    indices: Sequence[str] = ALL_INDICES,
    valid_HW: Tensor | None = None,
) -> dict[str, dict[str, float]]:
    """Return the result of `evaluate` under each convention: convention -> index -> value."""
    images = Comparison(fused_SHW, reference_SHW, valid_HW)
    return {name: images.evaluate(ratio, name, indices) for name in conventions}
