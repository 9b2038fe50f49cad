"""Local regression: predict every HSI band from the MSI, with gains that change over the image.

Hypersharpening (Selva et al., IEEE JSTARS 2015) with one regression per LR pixel, in the spirit of
context-based injection gains (Aiazzi et al., IEEE TGRS 2002) and of the guided filter (He et al.,
IEEE TPAMI 2013).

Legend: S bands, M MSI bands, h w LR size, H W HR size.
"""

import numpy as np
from scipy.ndimage import gaussian_filter

from feinfn.methods.classical.problem import Problem
from feinfn.region import filled

SIGMA_LR_PX = 1.0
"""Standard deviation of the regression's Gaussian window, in LR pixels."""

RIDGE = 1e-4
"""Weight of the local gains' deviation from the global ones, relative to the MSI's mean square."""


def solve(problem: Problem) -> np.ndarray:
    """Return P + up(LR-HSI - D P), [S, H, W], for P = gains MSI + constants.

    D is PSF and sampling; gains and constants are interpolated from the LR pixels' true places.
    """
    gains_SMhw, constants_Shw = regression(problem)
    fused_SHW = problem.interpolate(constants_Shw)
    for gains_Mhw, band_HW in zip(gains_SMhw, fused_SHW, strict=True):
        band_HW += (problem.interpolate(gains_Mhw) * problem.msi_MHW).sum(axis=0)
    rest_Shw = filled(problem.lr_hsi_Shw - problem.degrade(fused_SHW), problem.kept_hw)
    fused_SHW += problem.interpolate(rest_Shw)
    return fused_SHW


def regression(problem: Problem, sigma_lr_px: float = SIGMA_LR_PX) -> tuple[np.ndarray, np.ndarray]:
    """Return gains [S, M, h, w] and constants [S, h, w] of the LR-HSI on the degraded MSI.

    At every LR pixel they minimise the squared error under Gaussian weights around it, plus the
    ridge on the gains' deviation from the global regression.
    """
    low_Mhw, size = problem.low_msi, problem.lr_hsi_Shw.shape[1:]
    gains_SM, constants_S = problem.prediction
    rest_Shw = problem.lr_hsi_Shw - np.tensordot(gains_SM, low_Mhw, 1) - constants_S[:, None, None]
    weights_hw = np.ones(size) if problem.kept_hw is None else problem.kept_hw.astype(np.float64)

    def smooth(x: np.ndarray) -> np.ndarray:
        radius = min(int(4 * sigma_lr_px + 0.5), max(size))
        return gaussian_filter(
            x * weights_hw, sigma_lr_px, mode="constant", radius=radius, axes=(-2, -1)
        )

    # Far from every pixel of weight, all means are 0 and the regression is the global one.
    total_hw = smooth(np.ones(size)).clip(1e-12)
    m_Mhw, rest_mean_Shw = smooth(low_Mhw) / total_hw, smooth(rest_Shw) / total_hw
    square_MMhw = smooth(low_Mhw[:, None] * low_Mhw) / total_hw - m_Mhw[:, None] * m_Mhw
    cross_MShw = smooth(low_Mhw[:, None] * rest_Shw) / total_hw - m_Mhw[:, None] * rest_mean_Shw
    # The floor keeps a black image solvable.
    ridge = max(RIDGE * np.square(problem.samples(low_Mhw)).mean(), 1e-12)
    square_hwMM = np.moveaxis(square_MMhw, (0, 1), (2, 3)) + ridge * np.eye(len(low_Mhw))
    change_hwMS = np.linalg.solve(square_hwMM, np.moveaxis(cross_MShw, (0, 1), (2, 3)))
    change_SMhw = change_hwMS.transpose(3, 2, 0, 1)
    constants_Shw = constants_S[:, None, None] + rest_mean_Shw
    constants_Shw = constants_Shw - (change_SMhw * m_Mhw).sum(axis=1)
    return gains_SM[:, :, None, None] + change_SMhw, constants_Shw
