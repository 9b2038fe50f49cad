"""Simulation: make LR-HSI, MSI and the upsampled LR-HSI (LMS) from a scene.

Legend: B batch, S bands, M MSI bands, h w LR size, H W HR size.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from feinfn.errors import UserError, require
from feinfn.fields import Count, Finite, Items, Natural, Positive, Settings
from feinfn.protocols.operators import (
    Bits,
    Blur,
    Border,
    Chain,
    Decimate,
    Noise,
    Operator,
    Quantise,
    SpectralResponse,
)
from feinfn.protocols.response import read_srf

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

    def spatial(self) -> Chain:
        """Return blur and sampling, the linear operator from HR to LR pixels."""
        sample = Decimate(self.ratio, self.phase_px, self.phase_px)
        if self.psf == "delta":
            return Chain((sample,))
        if self.psf == "box":
            return Chain((Blur.box(self.psf_px, self.psf_border), sample))
        assert self.psf_sigma_px is not None
        return Chain((Blur.gaussian(self.psf_px, self.psf_sigma_px, self.psf_border), sample))

    def lr_valid(self, valid_HW: np.ndarray | None) -> np.ndarray | None:
        """Return the LR pixels [h, w] whose PSF touches pixels with data alone.

        None stands for an image without gaps.
        """
        if valid_HW is None:
            return None
        count = [
            Blur((x.kernel != 0).double(), x.border) if isinstance(x, Blur) else x
            for x in self.spatial().operators
        ]
        missing = Chain(tuple(count))(torch.from_numpy(~valid_HW).double()[None, None])
        return (missing[0, 0] < 0.5).numpy()

    def response(self, bands: int, wavelengths_nm: np.ndarray | None) -> SpectralResponse:
        """Return the linear operator from S bands at these wavelengths to MSI bands.

        Raises `UserError` if the scene's bands do not fit or the MSI is measured.
        """
        if self.srf == "measured":
            raise UserError(
                f"protocol {self.name}: the MSI is measured, so there is no spectral response; use "
                "a protocol with a table"
            )
        table = read_srf(self.srf)
        return SpectralResponse(table.matrix(self.msi_order, bands, wavelengths_nm, self.srf_by))


@dataclass(frozen=True)
class Inputs:
    """The three input images of a fusion, [B, ...], on one device."""

    msi_BMHW: Tensor
    lms_BSHW: Tensor
    lr_hsi_BShw: Tensor

    def inputs(self) -> tuple[Tensor, ...]:
        """Return (MSI, LMS, LR-HSI), the arguments of a network's forward."""
        return self.msi_BMHW, self.lms_BSHW, self.lr_hsi_BShw


@dataclass(frozen=True)
class Pair(Inputs):
    """Inputs and the reference from which they were simulated."""

    reference_BSHW: Tensor


@dataclass(frozen=True)
class Batch(Pair):
    """Patches cut from scenes, with the scenes' bases in place of the patches' own."""

    base_BSHW: Tensor
    """Bases; `lms_BSHW` is then the interpolation of `Sensor.start`."""
    base_error_B: Tensor
    """Mean absolute errors of the bases over whole scenes; NaN if no loss needs them."""

    def inputs(self) -> tuple[Tensor, ...]:
        """Return (MSI, interpolated LR-HSI, LR-HSI, base), the arguments of a network's forward."""
        return *super().inputs(), self.base_BSHW


def check_ratio(lr_size: tuple[int, ...], hr_size: tuple[int, ...], ratio: int, what: str) -> None:
    """Raise `UserError` unless the HR size is `ratio` times the LR size; `what` is named in it."""
    expected = tuple(ratio * n for n in lr_size)
    if tuple(hr_size) != expected:
        raise UserError(
            f"{what}: found HR size {hr_size[0]}x{hr_size[1]} with LR size "
            f"{lr_size[0]}x{lr_size[1]}, expected HR = {ratio} x LR; crop the scene to "
            f"{expected[0]}x{expected[1]} or use a protocol of another ratio"
        )


def simulate(
    reference_BSHW: Tensor,
    wavelengths_nm: np.ndarray | None,
    protocol: Protocol,
    what: str = "scene",
    *,
    msi_BMHW: Tensor | None = None,
    noise_seed: int | Sequence[int] = 0,
    valid_HW: np.ndarray | None = None,
) -> Pair:
    """Return the inputs that a protocol makes of reference cubes [B, S, H, W] in [0, 1].

    `msi_BMHW` is the measured MSI on the reference's grid, read only by protocols that need it.
    Image b of the batch draws its noise from entry b of `noise_seed`; an integer stands for seed,
    seed + 1, ... Noise may take LR-HSI and MSI out of [0, 1] unless they are rounded to bits; LMS
    is clipped to it. Pixels without data (`valid_HW` is False) do not count in the noise's power.

    Raises `UserError` if the size is not a multiple of the ratio, or bands or MSI do not fit.
    """
    batch, bands, height, width = reference_BSHW.shape
    ratio = protocol.ratio
    check_ratio((height // ratio, width // ratio), (height, width), ratio, what)
    if protocol.srf == "measured":
        msi = _measured(msi_BMHW, (batch, len(protocol.msi_order), height, width), protocol, what)
    else:
        msi = protocol.response(bands, wavelengths_nm)(reference_BSHW)
    seeds = range(noise_seed, noise_seed + batch) if isinstance(noise_seed, int) else noise_seed
    # Even and odd seeds, so that LR-HSI and MSI never share noise.
    lr_valid_hw = protocol.lr_valid(valid_HW)
    hsi_sensor = _sensor(protocol.hsi_snr_db, protocol.lr_bits, [2 * s for s in seeds], lr_valid_hw)
    msi_sensor = _sensor(
        protocol.msi_snr_db, protocol.msi_bits, [2 * s + 1 for s in seeds], valid_HW
    )
    lr_hsi, msi = hsi_sensor(protocol.spatial()(reference_BSHW)), msi_sensor(msi)
    return Pair(msi, upsample(lr_hsi, protocol), lr_hsi, reference_BSHW)


def upsample(lr_hsi_BShw: Tensor, protocol: Protocol) -> Tensor:
    """Return the LMS of an LR-HSI, clipped to [0, 1]."""
    return enlarge(lr_hsi_BShw, protocol.ratio, protocol.upsampling)


def enlarge(lr_hsi_BShw: Tensor, ratio: int, upsampling: str) -> Tensor:
    """Return an LR-HSI with `ratio` times the rows and columns, clipped to [0, 1].

    `upsampling` is one of `SUPPORT_PX`.
    """
    size = [ratio * n for n in lr_hsi_BShw.shape[-2:]]
    # torch refuses align_corners, even False, for the mode that ignores it.
    corners = None if upsampling == "nearest" else False
    lms = F.interpolate(lr_hsi_BShw, size=size, mode=upsampling, align_corners=corners)
    return lms.clamp(0, 1)


def _measured(
    msi_BMHW: Tensor | None, shape: tuple[int, ...], protocol: Protocol, what: str
) -> Tensor:
    shown = "none" if msi_BMHW is None else f"shape {list(msi_BMHW.shape)}"
    if msi_BMHW is None or tuple(msi_BMHW.shape) != shape:
        raise UserError(
            f"{what}: found {shown} as measured MSI, expected shape {list(shape)}, which protocol "
            f"{protocol.name} needs; use a scene that has one or a protocol with a response"
        )
    return msi_BMHW


def _sensor(
    snr_db: float | None, bits: int | None, seeds: list[int], valid_HW: np.ndarray | None
) -> Chain:
    steps: list[Operator] = []
    if snr_db is not None:
        valid = None if valid_HW is None else torch.from_numpy(valid_HW)
        steps.append(Noise(snr_db, tuple(seeds), valid))
    if bits is not None:
        steps.append(Quantise(bits))
    return Chain(tuple(steps))


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
