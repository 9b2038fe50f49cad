"""Named protocols: for each, the facts its line states and the choices inferred here.

A line is a group of papers that share prepared data and tables.
"""

import math
from typing import Any

from feinfn.protocols.protocol import Protocol

LINE = "descriptions of the prepared files of the FeINFN line"

AKHTAR = "the D700 table of Akhtar et al. (ECCV 2014)"

NSSR = "the D700 table that NSSR, CNN-FUS and MHF-net use"

CENTRED = "sampled so that the PSF is centred on the LR pixel's cell"


def _line(ratio: int, **fields: Any) -> Protocol:
    return Protocol(
        ratio=ratio,
        psf="gaussian",
        psf_px=3,
        psf_sigma_px=0.5,
        psf_border="reflect",
        phase_px=ratio // 2,
        srf="nikon_d700_akhtar_norm",
        known=f"As far as known: 3x3 Gaussian, sigma 0.5, every {ratio}th pixel; the line's code "
        "says that prepared files hold the MSI as " + ", ".join(fields["msi_order"]) + ".",
        source=LINE,
        **fields,
    )


def _cave(ratio: int) -> Protocol:
    return _line(
        ratio,
        name=f"cave_x{ratio}",
        msi_order=("B", "G", "R"),
        about=f"CAVE at ratio {ratio} as in the papers FeINFN compares with.",
        inferred=f"Rows and columns {ratio // 2}, {ratio // 2 + ratio}, ... (what MATLAB's "
        "imresize 'nearest' picks, and next to the cell's centre); mirrored border; "
        f"{AKHTAR}; LMS bicubic, clipped to [0, 1].",
    )


def _harvard(ratio: int) -> Protocol:
    return _line(
        ratio,
        name=f"harvard_x{ratio}",
        srf_by="index",
        msi_order=("R", "G", "B"),
        about=f"Harvard at ratio {ratio} as in the papers FeINFN compares with.",
        inferred=f"Phase, border and LMS as for CAVE; {AKHTAR}, whose 31 entries from 400 to "
        "700 nm are given to Harvard's 31 bands from 420 to 720 nm one by one, because the table "
        "ends at 700 nm and has as many entries as there are bands.",
    )


def _dhif(ratio: int) -> Protocol:
    return Protocol(
        name=f"dhif_x{ratio}",
        ratio=ratio,
        psf="gaussian",
        psf_px=ratio,
        psf_sigma_px=2.0,
        psf_border="circular",
        phase_px=ratio // 2 - 1,
        srf="nikon_d700_nssr_norm",
        msi_order=("R", "G", "B"),
        about=f"DHIF-Net's data set at ratio {ratio}; SFNO follows it.",
        known=f"Gaussian of {ratio}x{ratio} taps, sigma 2, circular border, sampled at ratio/2 - 1 "
        "(DHIF-Net's own network samples at ratio/2 instead).",
        inferred=f"{NSSR}, R, G, B; centre tap {ratio // 2}, which puts the PSF on the LR pixel's "
        "cell; LMS bicubic, clipped to [0, 1].",
        source="TaoHuang95/DHIF-Net 6434366, data set; weili419/SFNO 156fecb",
    )


def _cnnfus(ratio: int) -> Protocol:
    return Protocol(
        name=f"cnnfus_x{ratio}",
        ratio=ratio,
        psf="gaussian",
        psf_px=7,
        psf_sigma_px=2.0,
        psf_border="circular",
        phase_px=0,
        srf="nikon_d700_nssr_norm",
        msi_order=("R", "G", "B"),
        about=f"CNN-FUS at ratio {ratio}.",
        known=f"7x7 Gaussian, sigma 2; {NSSR}.",
        inferred="Circular border and phase 0, as a blur in the Fourier domain suggests; MSI order "
        "R, G, B; LMS bicubic, clipped to [0, 1].",
        source="descriptions of CNN-FUS",
    )


def _lso(ratio: int) -> Protocol:
    sigma = ratio / 2
    taps = 2 * math.ceil(3 * sigma) + 1
    return Protocol(
        name=f"lso_x{ratio}",
        ratio=ratio,
        psf="gaussian",
        psf_px=taps,
        psf_sigma_px=sigma,
        psf_border="reflect",
        phase_px=0,
        srf="nikon_d700_akhtar_norm",
        msi_order=("B", "G", "R"),
        about=f"LSO at ratio {ratio}: the LR-HSI is made in its loader.",
        known=f"Gaussian, sigma ratio/2 = {sigma:g}, 2 ceil(3 sigma) + 1 = {taps} taps, phase 0.",
        inferred=f"Mirrored border; MSI as in the prepared CAVE files ({AKHTAR}, B, G, R); LMS "
        "bicubic, clipped to [0, 1].",
        source="weili419/LSO 5bebab0 (ICML 2026)",
    )


def _yokoya(ratio: int, **fields: Any) -> Protocol:
    """Return a protocol with Yokoya's PSF: full width at half maximum = one LR pixel."""
    chosen = (
        f"{2 * ratio}x{2 * ratio} taps, {CENTRED}; mirrored border; LMS bicubic, clipped to [0, 1]"
    )
    return Protocol(
        ratio=ratio,
        psf="gaussian",
        psf_px=2 * ratio,
        psf_sigma_px=ratio / 2.355,
        psf_border="reflect",
        phase_px=ratio // 2 - 1,
        known=f"Gaussian, sigma ratio/2.355 (Yokoya).{fields.pop('known', '')}",
        inferred=f"{chosen}.{fields.pop('inferred', '')}",
        **fields,
    )


def _yokoya_cave(ratio: int) -> Protocol:
    return _yokoya(
        ratio,
        name=f"yokoya_x{ratio}",
        srf="nikon_d700_akhtar_norm",
        msi_order=("B", "G", "R"),
        about=f"CAVE at ratio {ratio} with the PSF usual in remote sensing.",
        inferred=" SRF and MSI order as in cave_x4, so that only the PSF differs.",
        source="descriptions of Yokoya's degradation",
    )


PROTOCOLS: dict[str, Protocol] = {
    p.name: p
    for p in [
        *map(_cave, (4, 8)),
        *map(_harvard, (4, 8)),
        *map(_dhif, (4, 8, 16, 32)),
        *map(_cnnfus, (8, 16, 32)),
        *map(_lso, (4, 8, 16)),
        *map(_yokoya_cave, (4, 8)),
        _yokoya(
            4,
            name="indian_pines_x4",
            srf="landsat_indian_pines",
            srf_by="index",
            msi_order=("B", "G", "R", "NIR", "SWIR1", "SWIR2"),
            about="Indian Pines (AVIRIS, 200 bands) at ratio 4, fused with Landsat bands.",
            known=" Landsat response as a 6x200 matrix.",
            inferred=" Band names, from the matrix's columns.",
            source="matrix for Indian_pines_corrected; see feinfn/protocols/srf/README.md",
        ),
        _yokoya(
            4,
            name="ikonos_x4",
            srf="ikonos",
            msi_order=("B", "G", "R", "NIR"),
            about="Any sensor with wavelengths (Jasper Ridge, Pavia Centre) at ratio 4, fused with "
            "IKONOS bands.",
            known=" IKONOS response by wavelength, 350 to 1035 nm.",
            inferred=" These bands see nothing beyond the table, at whose ends they have fallen "
            "below 0.2 % of their peaks.",
            source="table of the IKONOS response; see feinfn/protocols/srf/README.md",
        ),
        _yokoya(
            4,
            name="paris_x4",
            srf="measured",
            msi_order=("MS1p", "MS1", "MS2", "MS3", "MS4", "MS4p", "MS5p", "MS5", "MS7"),
            about="The real pair of Paris: Hyperion is the reference and is degraded at ratio 4, "
            "the MSI is what ALI measured on the same grid.",
            known=" The MSI is measured.",
            inferred=" Order of ALI's bands, by wavelength as in the matrix from Hyperion to ALI.",
            source="Paris, Hyperion and ALI, 72x72 pixels",
        ),
    ]
}
