"""Hyperspectral images as colours for people."""

import numpy as np

RGB_NM = (640.0, 550.0, 460.0)


def rgb_bands(bands: int, wavelengths_nm: np.ndarray | None) -> list[int]:
    """Return the bands next to 640, 550 and 460 nm; without wavelengths, at 5/6, 1/2 and 1/6."""
    if wavelengths_nm is None:
        return [bands * part // 6 for part in (5, 3, 1)]
    return [int(np.abs(wavelengths_nm - nm).argmin()) for nm in RGB_NM]


def colours(bands_3HW: np.ndarray, white: float) -> np.ndarray:
    """Return three bands as uint8 [H, W, 3], `white` and above as 255, gamma 2.2."""
    shown = (bands_3HW / white).clip(0, 1) ** (1 / 2.2)
    return np.rint(255 * shown).astype(np.uint8).transpose(1, 2, 0)


def pseudo_rgb(
    cube_SHW: np.ndarray, wavelengths_nm: np.ndarray | None, white: float = 1.0
) -> np.ndarray:
    """Return a cube as uint8 [H, W, 3], `white` and above as 255."""
    return colours(cube_SHW[rgb_bands(len(cube_SHW), wavelengths_nm)], white)
