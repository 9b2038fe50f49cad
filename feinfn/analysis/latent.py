"""Amplitude and phase of the latent codes of an HR-HSI and of its LR-HSI.

Legend: C channels, F features, H W HR size, h w LR size.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from feinfn.analysis.radial import CHANNELS, Similarity, similarity
from feinfn.errors import require
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.feinfn.strips import Strips
from feinfn.protocols.simulate import Pair

ROWS = 128
"""Rows of an image that are encoded at a time."""


@dataclass(frozen=True)
class LatentSpectra:
    """Spectra of both codes at their common frequencies, and their similarity.

    They are complex [F, h', w'] in the order of `fft2`; h' and w' are the largest odd numbers up to
    h and w. Both are in units of the HR code, and the LR code is shifted so that its pixels lie
    where the HR grid has them.
    """

    hr_Fhw: np.ndarray
    lr_Fhw: np.ndarray
    similarity: Similarity

    def panels(self) -> dict[str, np.ndarray]:
        """Return pictures [h', w'] with frequency zero in the middle.

        Amplitudes are log10 of the mean over features; phases are those of the first feature in
        radians.
        """
        pictures = {}
        for name, spectrum in (("hr", self.hr_Fhw), ("lr", self.lr_Fhw)):
            amplitude = abs(spectrum).mean(axis=0)
            pictures[f"{name}_amplitude"] = np.fft.fftshift(np.log10(amplitude + 1e-12))
            pictures[f"{name}_phase"] = np.fft.fftshift(np.angle(spectrum[0]))
        return pictures


def _lowest(spectrum_CHW: Tensor, size_HW: tuple[int, int]) -> Tensor:
    """Return the bins of lowest frequency, as many as an odd size has."""
    for axis, count in zip((-2, -1), size_HW, strict=True):
        index = torch.fft.fftfreq(count, 1 / count).round().long() % spectrum_CHW.shape[axis]
        spectrum_CHW = spectrum_CHW.index_select(axis, index.to(spectrum_CHW.device))
    return spectrum_CHW


def _shift(size: int, hr: int, offset_px: float) -> Tensor:
    """Return the factors that shift samples by `offset_px` HR pixels along an axis."""
    k = torch.fft.fftfreq(size, 1 / size, dtype=torch.float64)
    return torch.polar(torch.ones_like(k), -2 * torch.pi * k * offset_px / hr)


def code_spectra(hr_FHW: Tensor, lr_Fhw: Tensor, offset_px: float, bands: int = 8) -> LatentSpectra:
    """Compare two codes of one scene; LR pixel (0, 0) lies at HR pixel (offset, offset).

    `offset_px` is in HR pixels; `bands` is the number of radial bands of the similarity.
    """
    (height, width), (h, w) = hr_FHW.shape[1:], lr_Fhw.shape[1:]
    size = ((h - 1) // 2 * 2 + 1, (w - 1) // 2 * 2 + 1)
    move_hw = _shift(size[0], height, offset_px)[:, None] * _shift(size[1], width, offset_px)
    spectra: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    for hr, lr in zip(hr_FHW.split(CHANNELS), lr_Fhw.split(CHANNELS), strict=True):
        lr_spectrum = _lowest(torch.fft.fft2(lr.double().cpu()), size) * move_hw
        spectra[0].append(_lowest(torch.fft.fft2(hr.double().cpu()), size).numpy())
        # Scales sums over LR pixels to sums over HR pixels.
        spectra[1].append((lr_spectrum * (height * width / (h * w))).numpy())
    hr_all, lr_all = (np.concatenate(parts) for parts in spectra)
    return LatentSpectra(hr_all, lr_all, similarity(hr_all, lr_all, bands))


@torch.inference_mode()
def latent_spectra(model: FeINFN, pair: Pair, offset_px: float, bands: int = 8) -> LatentSpectra:
    """Encode the reference and the LR-HSI of a batch of one with the spectral encoder and compare.

    `offset_px` is the protocol's. Raises `UserError` for a larger batch.
    """
    require(len(pair.reference_BSHW) == 1, "pair", len(pair.reference_BSHW), "a batch of one")
    strips = Strips(encoder_rows=ROWS)
    hr_FHW = model.spectral_encoder.in_strips(pair.reference_BSHW, strips)[0]
    lr_Fhw = model.spectral_encoder.in_strips(pair.lr_hsi_BShw, strips)[0]
    return code_spectra(hr_FHW, lr_Fhw, offset_px, bands)
