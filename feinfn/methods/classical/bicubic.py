"""Bicubic: the LMS itself, which every fusion should beat."""

import numpy as np

from feinfn.methods.classical.problem import Problem


def solve(problem: Problem) -> np.ndarray:
    """Return the LR-HSI upsampled as the protocol says (bicubic in most), [S, H, W]."""
    return problem.lms()
