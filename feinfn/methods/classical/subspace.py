"""Least squares in a spectral subspace, with known PSF and SRF.

In the spirit of HySure (Simoes et al., IEEE TGRS 2015), with a quadratic prior in place of total
variation, so that the minimum solves one linear system.

Legend: S bands, M MSI bands, K dimensions of the subspace, H W HR size, n LR pixels.
"""

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.linalg import LinearOperator, cg

from feinfn.methods.classical import gsa
from feinfn.methods.classical.problem import Problem
from feinfn.protocols.simulate import axis_matrix

DIMENSIONS = 20
"""Largest dimension of the subspace."""

SMOOTHNESS = 0.01
"""Weight of the prior."""

EDGE = 0.01
"""Squared step between MSI neighbours that halves their weight, relative to its mean square."""

ITERATIONS = 200
"""Largest number of conjugate gradient steps."""

TOLERANCE = 1e-5
"""Residual of the linear system, relative to its right-hand side, at which to stop."""


def solve(problem: Problem) -> np.ndarray:
    """Return E Z [S, H, W] for the Z [K, H, W] that conjugate gradients find to minimise

    |D E Z - LR-HSI|^2 + |R E Z - MSI|^2 + SMOOTHNESS sum w |grad (Z - E' P)|^2.

    D is PSF and sampling, R the SRF, E the first K left singular vectors of the LR-HSI [S, n], and
    P the MSI mapped by the regression of the LR-HSI on the degraded MSI. grad takes the steps
    between neighbours, w = 1 / (1 + step^2 / (EDGE mean square)) in the MSI, so that the
    regression's residual spreads up to the MSI's edges. Sums leave out pixels without data.
    """
    kept, valid = problem.kept_hw, problem.msi_valid_HW
    basis_SK = np.linalg.svd(problem.samples(problem.lr_hsi_Shw), full_matrices=False)[0]
    basis_SK = basis_SK[:, :DIMENSIONS]
    shape = (basis_SK.shape[1], *problem.size)
    response_MK = problem.response @ basis_SK
    weights = [_weights(problem, 1), _weights(problem, 2).T]
    coupling_KK = response_MK.T @ response_MK
    # Sparse: few of the pixels that a blur computes are sampled.
    rows_hH, cols_wW = (csr_array(axis_matrix(n, problem.protocol)) for n in problem.size)

    def normal(z: np.ndarray) -> np.ndarray:
        z_KHW = z.reshape(shape)
        out_KHW = _without_gaps(np.tensordot(coupling_KK, z_KHW, 1), valid)
        # Channel by channel, so that all stays in the cache.
        for k, z_HW in enumerate(z_KHW):
            # E' E = 1, so the first term needs no E.
            low_hw = _without_gaps((cols_wW @ (rows_hH @ z_HW).T).T, kept)
            out_KHW[k] += (cols_wW.T @ (rows_hH.T @ low_hw).T).T
            out_KHW[k] += SMOOTHNESS * _roughness(z_HW, weights)
        return out_KHW.ravel()

    gains_SM, constants_S = problem.prediction
    prior_KHW = np.tensordot(basis_SK.T @ gains_SM, problem.msi_MHW, 1)
    prior_KHW += (basis_SK.T @ constants_S)[:, None, None]
    low_Khw = np.tensordot(basis_SK.T, problem.lr_hsi_Shw, 1)
    right_KHW = problem.adjoint(_without_gaps(low_Khw, kept))
    right_KHW += _without_gaps(np.tensordot(response_MK.T, problem.msi_MHW, 1), valid)
    right_KHW += SMOOTHNESS * np.stack([_roughness(x_HW, weights) for x_HW in prior_KHW])
    start_KHW = np.tensordot(basis_SK.T, gsa.solve(problem), 1)
    count = right_KHW.size
    system = LinearOperator((count, count), matvec=normal, dtype=np.float64)
    z, _ = cg(system, right_KHW.ravel(), x0=start_KHW.ravel(), rtol=TOLERANCE, maxiter=ITERATIONS)
    return np.tensordot(basis_SK, z.reshape(shape), 1)


def _without_gaps(x_CHW: np.ndarray, valid_HW: np.ndarray | None) -> np.ndarray:
    return x_CHW if valid_HW is None else x_CHW * valid_HW


def _weights(problem: Problem, axis: int) -> np.ndarray:
    """Return the weight of each step between neighbours along an axis, 0 if one has no data."""
    step = np.square(np.diff(problem.msi_MHW, axis=axis)).mean(axis=0)
    scale = EDGE * np.square(problem.pixels(problem.msi_MHW)).mean()
    # Avoids 0 / 0 for a black image, which has no steps either.
    weights = 1 / (1 + step / max(scale, 1e-12))
    if (valid := problem.msi_valid_HW) is None:
        return weights
    first, last = (np.delete(valid, end, axis=axis - 1) for end in (-1, 0))
    return weights * (first & last)


def _roughness(z_HW: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """Return grad' w grad z: weighted differences from the neighbours inside the image.

    The weights of steps along rows are transposed, like the image along which they are taken.
    """
    out_HW = np.zeros_like(z_HW)
    for z_XY, out_XY, weight in zip((z_HW, z_HW.T), (out_HW, out_HW.T), weights, strict=True):
        step = (z_XY[1:] - z_XY[:-1]) * weight
        out_XY[:-1] -= step
        out_XY[1:] += step
    return out_HW
