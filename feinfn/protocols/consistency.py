"""Consistency: move an image to the nearest one that agrees with what the sensors measured.

The response R mixes bands and D, PSF with sampling, mixes pixels. So their projectors commute, and
one sweep meets MSI and LR-HSI. D is separable, so D D' is inverted along each axis, exactly and
without iterations, even if the PSFs of LR pixels overlap.

Noise and rounding turn the constraint into an estimate: the posterior mean of an image whose errors
are white, with one variance per band. It too is one sweep, the MSI first, because all covariances
are a matrix over bands times one over pixels.

Legend: N batch, S bands, M MSI bands, C any channels, h w LR size, H W HR size, T taps of the PSF,
k l eigenvectors of D D' along rows and columns.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from feinfn.errors import UserError, require, require_one_of
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.simulate import Inputs, axis_matrix

What = Literal["msi", "hsi", "both"]
"""Measurements that an image shall meet."""

LEAST_EIGENVALUE = 1e-6
"""Eigenvalues of D D' along an axis that are smaller, relative to the largest, count as zero."""

LEAST_PRIOR = 1e-2
"""Smallest share of LR-HSI - D(base) that is an error of the base and no noise."""

LEAST_NOISE = 1e-12
"""Smallest variance of a noisy band; a black band has no noise."""


def project(
    x_NSHW: Tensor,
    inputs: Inputs,
    protocol: Protocol,
    what: What,
    wavelengths_nm: np.ndarray | None = None,
    *,
    cut: bool = False,
    base_NSHW: Tensor | None = None,
) -> Tensor:
    """Return `meet` with the protocol's response on bands at these wavelengths.

    Raises `UserError` as `known_response` and `meet` do.
    """
    response_MS = known_response(what, protocol, x_NSHW.shape[1], wavelengths_nm)
    return meet(x_NSHW, inputs, protocol, what, response_MS, cut=cut, base_NSHW=base_NSHW)


def meet(
    x_NSHW: Tensor,
    inputs: Inputs,
    protocol: Protocol,
    what: What,
    response_MS: Tensor | None,
    *,
    cut: bool = False,
    base_NSHW: Tensor | None = None,
) -> Tensor:
    """Return the image [N, S, H, W] nearest to x that meets MSI, LR-HSI or both, not clipped.

    If the protocol adds noise to a measurement it shall meet, or rounds it, the result is the
    posterior mean for the prior mean x. The prior variance of a band is estimated from LR-HSI -
    D(base); without a base, x is the base. `cut` says that the images are cut from larger ones: LR
    pixels whose PSF leaves the image are then ignored. If both measurements are exact but
    contradict each other, the LR-HSI is met.

    The result is differentiable and, for a given base, affine in x. Products are float32 or wider,
    also under autocast. `response_MS` is that of `known_response`. Raises `UserError` if no LR
    pixel lies inside.
    """
    msi_noisy = what != "hsi" and _noisy(protocol.msi_snr_db, protocol.msi_bits)
    hsi_noisy = what != "msi" and _noisy(protocol.hsi_snr_db, protocol.lr_bits)
    with torch.autocast(x_NSHW.device.type, enabled=False):
        x_NSHW = x_NSHW.to(torch.promote_types(x_NSHW.dtype, torch.float32))
        prior_NS = torch.ones(x_NSHW.shape[:2], dtype=torch.float64)
        noise_NS = _noise(inputs.lr_hsi_BShw, protocol.hsi_snr_db, protocol.lr_bits)
        if what != "msi" or msi_noisy:
            axes = [Axis.of(n, protocol, cut) for n in x_NSHW.shape[-2:]]
        if msi_noisy or hsi_noisy:
            base_NSHW = x_NSHW if base_NSHW is None else base_NSHW.to(x_NSHW)
            prior_NS = _prior(_rest(base_NSHW.detach(), inputs, axes), noise_NS, axes)
        covariance_NSS = torch.diag_embed(prior_NS)
        if response_MS is not None:
            noise_NM = _noise(inputs.msi_BMHW, protocol.msi_snr_db, protocol.msi_bits)
            gain_NSM = _gain(response_MS, covariance_NSS, noise_NM)
            covariance_NSS = covariance_NSS - gain_NSM @ response_MS @ covariance_NSS
            x_NSHW = _meet_msi(x_NSHW, inputs.msi_BMHW, response_MS, gain_NSM)
        if what == "msi":
            return x_NSHW
        modes_NSkl = _rest(x_NSHW, inputs, axes)
        if hsi_noisy:
            modes_NSkl = _weighted(modes_NSkl, axes, covariance_NSS, noise_NS)
        else:
            modes_NSkl = modes_NSkl / _eigenvalues(axes).to(modes_NSkl)
        return _add(x_NSHW, modes_NSkl, axes)


def known_response(
    what: What, protocol: Protocol, bands: int, wavelengths_nm: np.ndarray | None
) -> Tensor | None:
    """Return the response [M, S] that consistency with the MSI needs, float64; None for `hsi`.

    Raises `UserError` if `what` is unknown, the MSI is measured or stored without a response that
    is known, or the bands do not fit.
    """
    require_one_of("consistency", what, ("msi", "hsi", "both"))
    if what == "hsi":
        return None
    lacking = ""
    if protocol.srf == "measured":
        lacking = f"protocol {protocol.name}, whose MSI is measured"
    elif protocol.srf_by == "wavelength" and wavelengths_nm is None:
        lacking = f"images without wavelengths, which the response {protocol.srf} needs"
    if lacking:
        raise UserError(
            f"found {what!r} for {lacking}, expected a known spectral response; ask for 'hsi', or "
            "use scenes with wavelengths and a protocol with a response table",
            "consistency",
        )
    return torch.from_numpy(protocol.response(bands, wavelengths_nm))


def _noisy(snr_db: float | None, bits: int | None) -> bool:
    return snr_db is not None or bits is not None


def _noise(y_NChw: Tensor, snr_db: float | None, bits: int | None) -> Tensor:
    """Return the noise's variance in every band of measured images, [N, C]; 0 if there is none."""
    noise_NC = torch.zeros(y_NChw.shape[:2], dtype=torch.float64)
    if snr_db is not None:
        power_NC = y_NChw.detach().double().square().mean(dim=(-2, -1)).cpu()
        # The measured power is the signal's plus the noise's.
        noise_NC = power_NC / (1 + 10 ** (snr_db / 10))
    if bits is not None:
        noise_NC = noise_NC + (1 / (2**bits - 1)) ** 2 / 12
    return noise_NC.clamp(min=LEAST_NOISE) if _noisy(snr_db, bits) else noise_NC


@dataclass(frozen=True, eq=False)
class Axis:
    """PSF and sampling along one axis, a matrix D [h, H], by the eigenvectors of D D'."""

    vectors_hk: Tensor
    """Eigenvectors, zero for LR pixels that are ignored."""
    spread_Hk: Tensor
    """D' times the eigenvectors."""
    values_k: Tensor
    """Eigenvalues."""

    @classmethod
    def of(cls, size: int, protocol: Protocol, cut: bool) -> "Axis":
        """Return the axis of an image of `size` HR pixels, float64.

        With `cut`, LR pixels whose PSF leaves the image are ignored. Raises `UserError` if all do.
        """
        matrix_hH = axis_matrix(size, protocol)
        if cut:
            count = protocol.psf_px
            first = torch.arange(len(matrix_hH)) * protocol.ratio + protocol.phase_px
            first -= (count - 1) // 2
            matrix_hH[(first < 0) | (first + count > size)] = 0
            expected = f"an image of at least {protocol.phase_px + count + protocol.ratio} px"
            require(bool(matrix_hH.any()), "consistency", f"{size} px", expected)
        values_h, vectors_hh = torch.linalg.eigh(matrix_hH @ matrix_hH.T)
        kept = values_h > LEAST_EIGENVALUE * values_h[-1]
        vectors_hk = vectors_hh[:, kept]
        return cls(vectors_hk, matrix_hH.T @ vectors_hk, values_h[kept])


def _eigenvalues(axes: list[Axis]) -> Tensor:
    """Return the eigenvalues of D D', [k, l]."""
    return axes[0].values_k[:, None] * axes[1].values_k


def _rest(x_NSHW: Tensor, inputs: Inputs, axes: list[Axis]) -> Tensor:
    """Return LR-HSI - D(x) by the eigenvectors of D D', [N, S, k, l]."""
    rows_hk, cols_wl = (axis.vectors_hk.to(x_NSHW) for axis in axes)
    rows_Hk, cols_Wl = (axis.spread_Hk.to(x_NSHW) for axis in axes)
    y_NShw = inputs.lr_hsi_BShw.to(x_NSHW)
    return rows_hk.T @ (y_NShw @ cols_wl) - rows_Hk.T @ (x_NSHW @ cols_Wl)


def _add(x_NSHW: Tensor, modes_NSkl: Tensor, axes: list[Axis]) -> Tensor:
    """Return x + D' z for the z of these coefficients."""
    rows_Hk, cols_Wl = (axis.spread_Hk.to(x_NSHW) for axis in axes)
    images_XHW, cols_XkW = x_NSHW.flatten(0, 1), (modes_NSkl @ cols_Wl.T).flatten(0, 1)
    # One fused step, so that memory beyond the result stays a fraction of the image.
    return torch.baddbmm(images_XHW, rows_Hk.expand(len(images_XHW), -1, -1), cols_XkW).view_as(
        x_NSHW
    )


def _prior(modes_NSkl: Tensor, noise_NS: Tensor, axes: list[Axis]) -> Tensor:
    """Return the variance of the base's errors in every band, [N, S]."""
    power_NS = modes_NSkl.double().square().mean(dim=(-2, -1)).cpu()
    error_NS = torch.maximum(power_NS - noise_NS, LEAST_PRIOR * power_NS)
    return error_NS.clamp(min=LEAST_NOISE) / _eigenvalues(axes).mean()


def _gain(response_MS: Tensor, covariance_NSS: Tensor, noise_NM: Tensor) -> Tensor:
    """Return C R' (R C R' + noise)^+, [N, S, M]; R^+ if C is the identity and there is no noise."""
    cross_NMS = response_MS @ covariance_NSS
    square_NMM = cross_NMS @ response_MS.T + torch.diag_embed(noise_NM)
    return cross_NMS.mT @ torch.linalg.pinv(square_NMM, hermitian=True)


def _meet_msi(x_NSHW: Tensor, msi_NMHW: Tensor, response_MS: Tensor, gain_NSM: Tensor) -> Tensor:
    """Return x + gain (MSI - R x)."""
    pixels_NSX = x_NSHW.flatten(2)
    rest_NMX = msi_NMHW.to(x_NSHW).flatten(2) - response_MS.to(x_NSHW) @ pixels_NSX
    return torch.baddbmm(pixels_NSX, gain_NSM.to(x_NSHW), rest_NMX).view_as(x_NSHW)


def _weighted(
    modes_NSkl: Tensor, axes: list[Axis], covariance_NSS: Tensor, noise_NS: Tensor
) -> Tensor:
    """Return C (C lambda + noise)^-1 of every coefficient's bands, for its eigenvalue lambda."""
    sigma_NS = noise_NS.sqrt()
    scaled_NSS = covariance_NSS / (sigma_NS[:, :, None] * sigma_NS[:, None])
    ratios_NS, bands_NSS = torch.linalg.eigh(scaled_NSS)
    # A combination of bands with ratio 0 is known already: it does not change.
    shrink_NSkl = 1 / (_eigenvalues(axes) + 1 / ratios_NS.clamp(min=0)[..., None, None])
    to_NSS, back_NSS = bands_NSS.mT / sigma_NS[:, None], sigma_NS[:, :, None] * bands_NSS
    modes_NSkl = torch.einsum("nts,nskl->ntkl", to_NSS.to(modes_NSkl), modes_NSkl)
    modes_NSkl = modes_NSkl * shrink_NSkl.to(modes_NSkl)
    return torch.einsum("nts,nskl->ntkl", back_NSS.to(modes_NSkl), modes_NSkl)
