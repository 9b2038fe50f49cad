"""Image quality indices under named conventions.

Images are [S, H, W] with peak 1; the reference comes second. An index alone has no meaning: the
same pair differs by decibels between the definitions in use, so every number belongs to one of
`CONVENTIONS`.
"""

from feinfn.metrics.conventions import CONVENTION, CONVENTIONS, Convention, find_convention
from feinfn.metrics.evaluation import (
    ALL_INDICES,
    HIGHER_IS_BETTER,
    METRICS,
    PER_BAND,
    compare,
    evaluate,
    maps,
    per_band,
    psnr_per_band,
    smallest_px,
    ssim_per_band,
)
from feinfn.metrics.no_reference import hqnr, qnr

__all__ = [
    "ALL_INDICES",
    "CONVENTION",
    "CONVENTIONS",
    "HIGHER_IS_BETTER",
    "METRICS",
    "PER_BAND",
    "Convention",
    "compare",
    "evaluate",
    "find_convention",
    "hqnr",
    "maps",
    "per_band",
    "psnr_per_band",
    "qnr",
    "smallest_px",
    "ssim_per_band",
]
