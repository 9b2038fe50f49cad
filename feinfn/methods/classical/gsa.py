"""GSA: adaptive Gram-Schmidt sharpening, with all MSI bands in place of the panchromatic one.

Aiazzi et al., IEEE TGRS 2007, regress one intensity from the HSI bands and replace it by the sharp
band; gains are the HSI bands' projections on it. Here the M intensities are replaced together, and
the projection is on all of them: band s is sharpened by the combination of MSI bands that predicts
it best at LR size (hypersharpening; Selva et al., IEEE JSTARS 2015).

Legend: S bands, M MSI bands, H W HR size, n LR pixels.
"""

import numpy as np

from feinfn.methods.classical.problem import Problem


def solve(problem: Problem) -> np.ndarray:
    """Return up(LR-HSI) + gains (MSI - up(intensities)), [S, H, W].

    Intensities are the least squares fit of the degraded MSI by LR-HSI bands. Gains [S, M] are the
    covariance of bands and intensities times the inverse covariance of the intensities.
    """
    size, bands = problem.lr_hsi_Shw.shape[1:], len(problem.lr_hsi_Shw)
    y_Sn, x_Mn = problem.samples(problem.lr_hsi_Shw), problem.samples(problem.low_msi)
    mean_S1, mean_M1 = (x.mean(axis=1, keepdims=True) for x in (y_Sn, x_Mn))
    y_Sn, x_Mn = y_Sn - mean_S1, x_Mn - mean_M1
    weights_SM = np.linalg.lstsq(y_Sn.T, x_Mn.T, rcond=1e-6)[0]
    gains_MS = np.linalg.lstsq((weights_SM.T @ y_Sn).T, y_Sn.T, rcond=1e-6)[0]
    # Interpolation is linear, so bands and intensities are interpolated together.
    y_Sn = problem.lr_hsi_Shw.reshape(bands, -1) - mean_S1
    rest_Sn = mean_S1 + y_Sn - gains_MS.T @ (weights_SM.T @ y_Sn + mean_M1)
    sharp_SHW = np.tensordot(gains_MS.T, problem.msi_MHW, 1)
    return problem.interpolate(rest_Sn.reshape(bands, *size)) + sharp_SHW
