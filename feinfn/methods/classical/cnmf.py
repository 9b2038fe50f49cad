"""CNMF: coupled non-negative matrix factorisation, after Yokoya et al., IEEE TGRS 2012.

A scene is endmembers times abundances. The LR-HSI determines the endmembers and the MSI the
abundances; the two are fitted in turn, each starting from the other's result. The paper updates
both factors in every turn. Here, after a first factorisation of the LR-HSI, its turns update the
endmembers alone, and the MSI's turns the abundances alone.

Legend: S bands, M MSI bands, K endmembers, H W HR size, N = H * W, n LR pixels.
"""

import numpy as np

from feinfn.methods.classical.problem import Problem, spread

ENDMEMBERS = 20
"""Largest number of endmembers."""

OUTER, INNER = 4, 150
"""Largest numbers of turns and of updates in each."""

CHECK = 10
"""Updates between two looks at the error; it divides INNER."""

TOLERANCE = 1e-4
"""Relative decrease of the error between two looks below which a turn stops."""

PIECE_PX = 1024
"""Pixels whose abundances are fitted at a time."""

SMALL = 1e-12


def solve(problem: Problem) -> np.ndarray:
    """Return endmembers times abundances, [S, H, W] >= 0; the start has a fixed seed.

    Abundances need not sum to one, because shading scales the spectrum of a material.
    """
    size, low_size, valid = problem.size, problem.lr_hsi_Shw.shape[1:], problem.msi_valid_HW
    hsi_Sn = problem.samples(problem.lr_hsi_Shw).clip(0)
    msi_MN = problem.pixels(problem.msi_MHW).clip(0)
    ends_SK = endmembers(hsi_Sn, min(ENDMEMBERS, *hsi_Sn.shape), np.random.default_rng(0))
    count = ends_SK.shape[1]
    low_Kn = fit(hsi_Sn, ends_SK, np.full((count, hsi_Sn.shape[1]), 1 / count))
    ends_SK, low_Kn = factorise(hsi_Sn, ends_SK, low_Kn)
    high_KHW = problem.interpolate(spread(low_Kn, problem.kept_hw, low_size))
    high_KN = problem.pixels(high_KHW).clip(SMALL)
    for _ in range(OUTER):
        high_KN = fit(msi_MN, problem.response @ ends_SK, high_KN)
        low_Kn = problem.samples(problem.degrade(spread(high_KN, valid, size)))
        ends_SK = fit(hsi_Sn.T, low_Kn.T, ends_SK.T).T
    return spread(ends_SK @ high_KN, valid, size)


def fit(data_SN: np.ndarray, ends_SK: np.ndarray, start_KN: np.ndarray) -> np.ndarray:
    """Return non-negative abundances [K, N] after multiplicative updates.

    No update increases |data - ends abundances|^2 (Lee and Seung, NIPS 2000). Pixels are
    independent, so several updates are made of some pixels at a time, which stay in the cache.
    """
    square_KK, abundances_KN = ends_SK.T @ ends_SK, np.array(start_KN, order="C")
    power, before = float((data_SN**2).sum()), np.inf
    for _ in range(0, INNER, CHECK):
        error = power
        for first in range(0, data_SN.shape[1], PIECE_PX):
            pixels = slice(first, first + PIECE_PX)
            cross = ends_SK.T @ data_SN[:, pixels]
            x = abundances_KN[:, pixels].copy()
            model = np.empty_like(x)
            for _ in range(CHECK):
                np.matmul(square_KK, x, out=model)
                model += SMALL
                x *= cross
                x /= model
            abundances_KN[:, pixels] = x
            error += float((x * (square_KK @ x - 2 * cross)).sum())
        if before - error <= TOLERANCE * error:
            break
        before = error
    return abundances_KN


def factorise(
    data_SN: np.ndarray, ends_SK: np.ndarray, abundances_KN: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return both non-negative factors after multiplicative updates in turn.

    No update increases |data - ends abundances|^2.
    """
    power, before = float((data_SN**2).sum()), np.inf
    for step in range(INNER):
        square_KK = abundances_KN @ abundances_KN.T
        ends_SK = ends_SK * (data_SN @ abundances_KN.T) / (ends_SK @ square_KK + SMALL)
        cross_KN, square_KK = ends_SK.T @ data_SN, ends_SK.T @ ends_SK
        abundances_KN = abundances_KN * cross_KN / (square_KK @ abundances_KN + SMALL)
        if step % CHECK == CHECK - 1:
            inner = square_KK @ abundances_KN - 2 * cross_KN
            error = power + float((abundances_KN * inner).sum())
            if before - error <= TOLERANCE * error:
                break
            before = error
    return ends_SK, abundances_KN


def endmembers(data_Sn: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Return `count` spectra [S, count] of the data by vertex component analysis.

    Each is the pixel that is extreme along a random direction orthogonal to those before it, in the
    subspace of the data's first singular vectors (Nascimento and Dias, IEEE TGRS 2005).
    """
    basis_SK = np.linalg.svd(data_Sn, full_matrices=False)[0][:, :count]
    x_Kn = basis_SK.T @ data_Sn
    # Project to a plane, so that dark and bright pixels of one spectrum become one point.
    mean_K = x_Kn.mean(axis=1)
    along_n = mean_K @ x_Kn
    x_Kn = np.where(along_n > 1e-3 * along_n.max(), x_Kn / along_n.clip(SMALL), 0)
    vertices_KK = np.zeros((count, count))
    picks = []
    for i in range(count):
        direction_K = rng.standard_normal(count)
        direction_K -= vertices_KK @ (np.linalg.pinv(vertices_KK) @ direction_K)
        picks.append(int(np.abs(direction_K @ x_Kn).argmax()))
        vertices_KK[:, i] = x_Kn[:, picks[-1]]
    return data_Sn[:, picks].clip(SMALL)
