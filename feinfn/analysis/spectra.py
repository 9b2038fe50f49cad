"""Spectra of selected pixels, and angles between them.

Legend: S bands, H W image size, N = H * W, P pixels.
"""

from collections.abc import Sequence

import numpy as np

from feinfn.errors import require


def check_place(place: tuple[int, int], size: Sequence[int], field: str) -> None:
    """Raise `UserError`, which names the field, unless row and column lie inside an image."""
    (row, col), (height, width) = place, size
    inside = 0 <= row < height and 0 <= col < width
    require(inside, field, place, f"a place inside {height}x{width}")


def spectra_at(image_SHW: np.ndarray, pixels: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return the spectra [P, S] of pixels (row, column); raise `UserError` for a pixel outside."""
    for pixel in pixels:
        check_place(pixel, image_SHW.shape[1:], "pixels")
    return np.stack([image_SHW[:, row, col] for row, col in pixels])


def angles_deg(a_PS: np.ndarray, b_PS: np.ndarray) -> np.ndarray:
    """Return the spectral angle of every pair of spectra in degrees, [P]; NaN for a black one."""
    a, b = np.asarray(a_PS, np.float64), np.asarray(b_PS, np.float64)
    lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    with np.errstate(invalid="ignore"):
        return np.degrees(np.arccos(np.clip((a * b).sum(axis=-1) / lengths, -1, 1)))


def distinct_pixels(reference_SHW: np.ndarray, count: int) -> list[tuple[int, int]]:
    """Return pixels of different materials: the brightest, then each the farthest in angle.

    Pixels darker than a quarter of the mean norm are left out; the first of equal pixels wins.
    Raises `UserError` if the image has fewer than `count` such pixels.
    """
    width = reference_SHW.shape[2]
    spectra_NS = reference_SHW.reshape(len(reference_SHW), -1).T.astype(np.float64)
    norm_N = np.linalg.norm(spectra_NS, axis=1)
    bright_N = np.flatnonzero((norm_N > norm_N.mean() / 4) & (norm_N > 0))
    require(1 <= count <= len(bright_N), "count", count, f"from 1 to {len(bright_N)} pixels")
    unit_NS = spectra_NS[bright_N] / norm_N[bright_N, None]
    chosen = [int(norm_N[bright_N].argmax())]
    nearest_N = unit_NS @ unit_NS[chosen[0]]
    while len(chosen) < count:
        nearest_N[chosen] = np.inf
        chosen.append(int(nearest_N.argmin()))
        nearest_N = np.maximum(nearest_N, unit_NS @ unit_NS[chosen[-1]])
    return [(int(bright_N[i]) // width, int(bright_N[i]) % width) for i in chosen]
