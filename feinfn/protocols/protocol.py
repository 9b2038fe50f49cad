"""Protocols: complete recipes for the inputs, as settings; `simulate` carries them out.

Legend: S bands, M MSI bands.
"""

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np

from feinfn.errors import UserError, require
from feinfn.fields import Bound, Count, Finite, Items, Natural, Positive, Settings
from feinfn.protocols.response import read_srf

Border = Literal["zero", "reflect", "replicate", "circular"]

Bits = Annotated[int, Bound(ge=1, le=16)]

TEXTS = ("name", "about", "known", "inferred", "source")

SUPPORT_PX = {"nearest": 0, "bilinear": 1, "bicubic": 2}
"""Upsampling modes, each with its reach: the LR pixels beyond a window that its interpolation
reads."""


@dataclass(frozen=True, kw_only=True)
class Protocol(Settings, section="protocol"):
    """A complete recipe for the inputs; every field except the texts changes the numbers."""

    name: str
    """Research line and ratio, as in cave_x4."""
    ratio: Count
    """HR pixels per LR pixel along each axis."""
    psf: Literal["gaussian", "box", "delta"]
    """Blur before sampling: a Gaussian, a mean over psf_px pixels, or none."""
    psf_px: Count = 1
    """Side of the PSF in HR pixels; the centre of an even PSF is tap psf_px / 2, see
    operators.Blur."""
    psf_sigma_px: Positive | None = None
    """Standard deviation of a Gaussian PSF in HR pixels; null for the others."""
    psf_border: Border
    """Continuation of the image beyond its border for the blur."""
    phase_px: Natural
    """HR row and column that becomes LR row and column 0."""
    srf: str
    """A table of feinfn/protocols/srf, the path of a .csv file, or `measured`: the scene's MSI."""
    srf_by: Literal["wavelength", "index"] = "wavelength"
    """Resample the response at the bands' wavelengths, or give its entry i to band i."""
    msi_order: Annotated[tuple[str, ...], Items(distinct=True)]
    """Bands of the response that become MSI bands, in this order; for a measured MSI, its band
    names."""
    upsampling: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    """Interpolation from LR-HSI to LMS (torch, align_corners=False), then clipped to [0, 1]."""
    hsi_snr_db: Finite | None = None
    """SNR of every LR-HSI band in dB (see operators.Noise); null adds no noise."""
    msi_snr_db: Finite | None = None
    """SNR of every MSI band in dB; null adds no noise."""
    lr_bits: Bits | None = None
    """Bits to which the LR-HSI is rounded after noise; null does not round."""
    msi_bits: Bits | None = None
    """Bits to which the MSI is rounded after noise; null does not round."""
    about: str = ""
    """One sentence for people."""
    known: str = ""
    """Facts that the line states."""
    inferred: str = ""
    """Choices made here because nobody states them, with reasons."""
    source: str = ""
    """Sources of the statements."""

    def __post_init__(self) -> None:
        super().__post_init__()
        inside = self.phase_px < self.ratio
        require(inside, "protocol.phase_px", self.phase_px, f"from 0 to {self.ratio - 1}")
        single = self.psf != "delta" or self.psf_px == 1
        require(single, "protocol.psf_px", self.psf_px, "1 for psf 'delta'")
        fits = (self.psf_sigma_px is None) == (self.psf != "gaussian")
        expected = f"{'null' if self.psf_sigma_px else 'a number > 0'} for psf {self.psf!r}"
        require(fits, "protocol.psf_sigma_px", self.psf_sigma_px, expected)

    def definition(self) -> dict[str, Any]:
        """Return all fields that change numbers, the response by content, for the run key.

        Raises `UserError` if the response cannot be read.
        """
        fields = {k: v for k, v in asdict(self).items() if k not in TEXTS}
        # 30 and 30.0 are the same number, but not the same JSON.
        for field in ("psf_sigma_px", "hsi_snr_db", "msi_snr_db"):
            fields[field] = None if fields[field] is None else float(fields[field])
        if self.srf != "measured":
            fields["srf"] = f"sha256:{read_srf(self.srf).sha256()}"
        return fields

    def hash(self) -> str:
        """Return the SHA-256 of the definition, 64 hexadecimal digits."""
        text = json.dumps(self.definition(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def noisy(self) -> bool:
        """True if noise is added."""
        return self.hsi_snr_db is not None or self.msi_snr_db is not None

    @property
    def offset_px(self) -> float:
        """Distance of the middle of LR pixel 0 from that of HR pixel 0, in HR pixels, on each axis.

        The middle of an even PSF lies half a pixel after the sampled pixel (see operators.Blur).
        """
        return self.phase_px + (self.psf_px % 2 == 0) / 2

    def response(self, bands: int, wavelengths_nm: np.ndarray | None) -> np.ndarray:
        """Return the response [M, S] of the MSI bands on S bands at these wavelengths, float64.

        Raises `UserError` if the scene's bands do not fit or the MSI is measured.
        """
        if self.srf == "measured":
            raise UserError(
                f"protocol {self.name}: the MSI is measured, so there is no spectral response; use "
                "a protocol with a table"
            )
        return read_srf(self.srf).matrix(self.msi_order, bands, wavelengths_nm, self.srf_by)


def check_ratio(lr_size: tuple[int, ...], hr_size: tuple[int, ...], ratio: int, what: str) -> None:
    """Raise `UserError` unless the HR size is `ratio` times the LR size; `what` is named in it."""
    expected = tuple(ratio * n for n in lr_size)
    if tuple(hr_size) != expected:
        raise UserError(
            f"{what}: found HR size {hr_size[0]}x{hr_size[1]} with LR size "
            f"{lr_size[0]}x{lr_size[1]}, expected HR = {ratio} x LR; crop the scene to "
            f"{expected[0]}x{expected[1]} or use a protocol of another ratio"
        )


def reach_px(protocol: Protocol, least_support_px: int = 0) -> int:
    """Return the HR pixels beyond a window that its simulation reads, a multiple of the ratio.

    A window with edges on multiples of the ratio (or on the image's edge) gets the inputs of the
    whole image if it is simulated with this margin, which is then cut off. Exceptions: a circular
    border reads the opposite edge, and noise is scaled by the power of all that is simulated at
    once. `least_support_px` LR pixels are what an interpolation beside that of the LMS reads.
    """
    ratio, phase = protocol.ratio, protocol.phase_px
    support = max(SUPPORT_PX[protocol.upsampling], least_support_px)
    # It reaches `support` LR pixels out on both sides, which lie at `phase` in their cells.
    before = support * ratio - phase + (protocol.psf_px - 1) // 2
    after = (support - 1) * ratio + 1 + phase + protocol.psf_px // 2
    return math.ceil(max(before, after, 0) / ratio) * ratio
