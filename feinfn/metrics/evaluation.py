"""Evaluation of one image under a convention: indices, indices per band, and error maps.

Legend: S bands, H W rows and columns.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from feinfn.errors import UserError, require_one_of
from feinfn.metrics.conventions import CONVENTION, CONVENTIONS, Convention, find_convention
from feinfn.metrics.hypercomplex import q2n, whole_blocks
from feinfn.metrics.indices import cc_per_band, mse_per_band, scc, uiqi_per_band, whole_windows
from feinfn.metrics.label import Label


@dataclass(frozen=True)
class Index:
    """An index of a fused image and its reference, [S, H, W], under a convention."""

    label: Label
    value: Callable[[Convention, Tensor, Tensor, int], float] | None = None
    """Value at a ratio; None: the mean over bands."""
    per_band: Callable[[Convention, Tensor, Tensor], Tensor] | None = None
    """Value of every band, [S], if it has one."""
    side_px: int = 1
    """Shortest side of an image for which it is defined; that of SSIM is the convention's."""
    windows: Callable[[Convention, Tensor, Tensor, Tensor], Tensor | float] | None = None
    """Value without the windows that touch pixels without data; None: an index of pixels."""

    def of(
        self,
        rule: Convention,
        fused_SHW: Tensor,
        reference_SHW: Tensor,
        ratio: int,
        valid_HW: Tensor | None = None,
    ) -> float:
        """Return the index of two images that `Convention` has prepared, of pixels with data."""
        if valid_HW is not None and self.windows is not None:
            return (
                torch.as_tensor(
                    self.windows(rule, fused_SHW, reference_SHW, valid_HW), dtype=torch.float64
                )
                .mean()
                .item()
            )
        a, b = _with_data(fused_SHW, reference_SHW, valid_HW)
        if self.value is not None:
            return self.value(rule, a, b, ratio)
        assert self.per_band is not None, "an index has a value, or one for every band"
        return self.per_band(rule, a, b).mean().item()


def _with_data(a_SHW: Tensor, b_SHW: Tensor, valid_HW: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return two images, or their pixels with data, [S, 1, pixels], for indices of pixels."""
    if valid_HW is None:
        return a_SHW, b_SHW
    return a_SHW[:, None, valid_HW], b_SHW[:, None, valid_HW]


def _mask_of(valid_HW: Tensor | None, cut_SHW: Tensor) -> Tensor | None:
    """Return the mask of an image as a convention cuts it."""
    return None if valid_HW is None else valid_HW[: cut_SHW.shape[1], : cut_SHW.shape[2]]


INDICES: dict[str, Index] = {
    "psnr": Index(
        Label("PSNR", 2, True, unit="dB", words=" dB", sign=" dB"),
        lambda rule, a, b, ratio: rule.psnr(a, b),
        Convention.psnr_per_band,
    ),
    "sam": Index(
        Label("SAM", 3, False, unit="deg", words=" degrees", sign="°"),
        lambda rule, a, b, ratio: rule.sam(a, b),
    ),
    "ergas": Index(Label("ERGAS", 3, False), Convention.ergas),
    "ssim": Index(
        Label("SSIM", 4, True), per_band=Convention.ssim_per_band, windows=Convention.ssim_per_band
    ),
    "rmse": Index(
        Label("RMSE", 5, False),
        lambda rule, a, b, ratio: mse_per_band(a, b).mean().sqrt().item(),
        lambda rule, a, b: mse_per_band(a, b).sqrt(),
    ),
    "cc": Index(Label("CC", 4, True), per_band=lambda rule, a, b: cc_per_band(a, b)),
    "scc": Index(
        Label("SCC", 4, True),
        lambda rule, a, b, ratio: scc(a, b),
        side_px=3,
        windows=lambda rule, a, b, valid: scc(a, b, valid),
    ),
    "uiqi": Index(
        Label("UIQI", 4, True),
        per_band=lambda rule, a, b: uiqi_per_band(a, b),
        side_px=32,
        windows=lambda rule, a, b, valid: uiqi_per_band(a, b, valid_HW=valid),
    ),
    "q2n": Index(
        Label("Q2n", 4, True),
        lambda rule, a, b, ratio: q2n(a, b),
        side_px=32,
        windows=lambda rule, a, b, valid: q2n(a, b, valid_HW=valid),
    ),
}
"""Every index with a reference by name; one more is one entry here."""
PER_BAND = {name: index.per_band for name, index in INDICES.items() if index.per_band}
ALL_INDICES = tuple(INDICES)
METRICS = ALL_INDICES[:4]
"""The printed ones."""


def smallest_px(index: str, convention: str = CONVENTION) -> int:
    """Return the shortest image side for which an index is defined."""
    rule = find_convention(convention)
    # SSIM alone sees whole images.
    return rule.ssim_px if index == "ssim" else INDICES[index].side_px + rule.cut_px


def evaluate(
    fused_SHW: Tensor,
    reference_SHW: Tensor,
    ratio: int,
    convention: str = CONVENTION,
    indices: Sequence[str] = METRICS,
    valid_HW: Tensor | None = None,
) -> dict[str, float]:
    """Return indices of one image: by default PSNR (dB), SAM (degrees), ERGAS and SSIM.

    Args: fused and reference [S, H, W] with peak 1; ratio of the protocol; indices of
    `ALL_INDICES`; `valid_HW` is False for pixels without data, which are left out together with
    every window that touches one. CC, SSIM and UIQI are means over bands; RMSE is that of the cube.
    Raises `UserError` for an unknown convention or index, different shapes, NaN, and images smaller
    than an index's window.
    """
    images = _images(fused_SHW, reference_SHW, convention, indices, ALL_INDICES)
    values = {}
    for name, rule, a, b in images:
        values[name] = INDICES[name].of(rule, a, b, ratio, _mask_of(valid_HW, a))
    return values


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
    windows = ", ".join(f"{INDICES[name].label.name} {n} of {m}" for name, (n, m) in counts)
    return (
        f"{missing} of {total} pixels have no data and are left out"
        f"{', and the windows that touch them: ' * bool(windows)}{windows}"
    )


def compare(
    fused_SHW: Tensor,
    reference_SHW: Tensor,
    ratio: int,
    conventions: Sequence[str] = tuple(CONVENTIONS),
    indices: Sequence[str] = ALL_INDICES,
    valid_HW: Tensor | None = None,
) -> dict[str, dict[str, float]]:
    """Return the result of `evaluate` under each convention, computing shared values once.

    The result maps convention -> index -> value.
    """
    computed: dict[tuple[Any, ...], float] = {}
    by_convention: dict[str, dict[str, float]] = {}
    for name in conventions:
        keys = {index: _dependencies(find_convention(name), index) for index in indices}
        new = [index for index in indices if keys[index] not in computed]
        values = evaluate(fused_SHW, reference_SHW, ratio, name, new, valid_HW) if new else {}
        computed |= {keys[index]: value for index, value in values.items()}
        by_convention[name] = {index: computed[key] for index, key in keys.items()}
    return by_convention


def _dependencies(rule: Convention, index: str) -> tuple[Any, ...]:
    """Return an index and all settings of a convention on which its value depends."""
    if index in ("psnr", "sam", "ergas"):
        return index, rule.name
    region = rule.ssim_window if index == "ssim" else rule.cut_px
    return index, rule.dtype, rule.levels, region


def per_band(
    fused_SHW: Tensor,
    reference_SHW: Tensor,
    convention: str = CONVENTION,
    indices: Sequence[str] = tuple(PER_BAND),
    valid_HW: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return indices of every band, each [S] float64; arguments and errors as in `evaluate`."""
    values = {}
    for name, rule, a, b in _images(fused_SHW, reference_SHW, convention, indices, tuple(PER_BAND)):
        valid, of_windows = _mask_of(valid_HW, a), INDICES[name].windows
        if valid is None or of_windows is None:
            values[name] = PER_BAND[name](rule, *_with_data(a, b, valid))
        else:
            values[name] = torch.as_tensor(of_windows(rule, a, b, valid))
    return values


def maps(
    fused_SHW: Tensor,
    reference_SHW: Tensor,
    convention: str = CONVENTION,
    valid_HW: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return error maps of an image as the convention cuts it, float64, NaN without data.

    `sam_deg` [H, W] is the spectral angle in degrees, NaN for pixels that are left out; `error` [H,
    W] is the absolute error averaged over bands; `error_SHW` is that of every band. Errors as in
    `evaluate`.
    """
    rule, fused, reference = _prepared(fused_SHW, reference_SHW, convention)
    a, b = rule.cut(fused), rule.cut(reference)
    error_SHW = (a - b).abs()
    sam_deg = torch.rad2deg(rule.angles(a, b))
    drawn = {"sam_deg": sam_deg, "error": error_SHW.mean(dim=0), "error_SHW": error_SHW}
    if (valid := _mask_of(valid_HW, a)) is None:
        return drawn
    return {name: x.masked_fill(~valid, torch.nan) for name, x in drawn.items()}


def _prepared(
    fused: Tensor, reference: Tensor, convention: str, indices: Iterable[str] = ()
) -> tuple[Convention, Tensor, Tensor]:
    """Return the convention and the images prepared for it, not yet cut; raise `UserError`."""
    rule = find_convention(convention)
    if fused.shape != reference.shape or fused.dim() != 3 or 0 in fused.shape:
        raise UserError(
            f"metrics: found shapes {tuple(fused.shape)} and {tuple(reference.shape)}, expected "
            "two equal shapes [bands, rows, columns]"
        )
    needed = {name: smallest_px(name, convention) for name in indices} or {"maps": 1 + rule.cut_px}
    for name, side in needed.items():
        if min(fused.shape[1:]) < side:
            raise UserError(
                f"metrics: found images of {fused.shape[1]}x{fused.shape[2]} pixels, expected at "
                f"least {side}x{side} for {name} under {convention}; evaluate larger images or "
                "leave it out"
            )
    if not bool(torch.isfinite(fused).all() and torch.isfinite(reference).all()):
        raise UserError("metrics: found NaN or inf in an image, expected finite reflectances")
    return rule, rule.prepare(fused), rule.prepare(reference)


def _images(
    fused: Tensor,
    reference: Tensor,
    convention: str,
    indices: Sequence[str],
    valid: Sequence[str],
) -> Iterator[tuple[str, Convention, Tensor, Tensor]]:
    """Yield every index with its convention and its two images."""
    for name in indices:
        require_one_of("indices", name, valid, "some of ")
    rule, whole_a, whole_b = _prepared(fused, reference, convention, indices)
    cut_a, cut_b = rule.cut(whole_a), rule.cut(whole_b)
    for name in indices:
        yield name, rule, *((whole_a, whole_b) if name == "ssim" else (cut_a, cut_b))
