"""SFIM for hyperspectral images: modulate every band by the relative detail of a sharp band.

Smoothing filter-based intensity modulation (Liu, Int. J. Remote Sensing 2000) with the sharp band
of hypersharpening (Selva et al., IEEE JSTARS 2015): for each HSI band, the combination of MSI bands
that predicts it best at LR size.

Legend: S bands, M MSI bands, H W HR size.
"""

import numpy as np

from feinfn.methods.classical.problem import Problem
from feinfn.region import filled

LARGEST_GAIN = 2.0
"""Upper bound of up(band) / low-pass(sharp band), which is meaningless if the latter is near
zero."""


def solve(problem: Problem) -> np.ndarray:
    """Return up(LR-HSI) + up(LR-HSI) / low-pass(sharp) x (sharp - low-pass(sharp)), [S, H, W].

    The low-pass is PSF, sampling and interpolation, the same steps that the LR-HSI passed.
    """
    gains_SM, constants_S = problem.prediction
    sharp_SHW = np.tensordot(gains_SM, problem.msi_MHW, 1) + constants_S[:, None, None]
    low_SHW = problem.interpolate(filled(problem.degrade(sharp_SHW), problem.kept_hw))
    up_SHW = problem.interpolate(problem.lr_hsi_Shw)
    ratio_SHW = np.divide(up_SHW, low_SHW, out=np.ones_like(low_SHW), where=low_SHW > 1e-6)
    return up_SHW + ratio_SHW.clip(0, LARGEST_GAIN) * (sharp_SHW - low_SHW)
