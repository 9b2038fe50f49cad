"""A scene: one hyperspectral cube in [0, 1], read from HDF5 and checked.

A file holds `GT` [bands, rows, columns], integers (divided by their type's maximum) or floats in
[0, 1], and `wavelength_nm` [bands].
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from feinfn.errors import UserError


@dataclass(frozen=True)
class Scene:
    """One HR-HSI: cube float32 [S, H, W] in [0, 1], band centres in nm [S]."""

    name: str
    cube_SHW: np.ndarray
    wavelengths_nm: np.ndarray
    source: str

    def pixel_hash(self) -> str:
        """Return the SHA-256 of pixels and wavelengths, whatever file they came from."""
        digest = hashlib.sha256(repr(self.cube_SHW.shape).encode())
        digest.update(np.ascontiguousarray(self.cube_SHW, dtype="<f4").tobytes())
        digest.update(np.ascontiguousarray(self.wavelengths_nm, dtype="<f8").tobytes())
        return digest.hexdigest()


def read_scene(path: Path) -> Scene:
    """Read and check one HDF5 scene.

    Raises `UserError` for a file that is missing, truncated, without the keys, of wrong shape, or
    with values outside [0, 1].
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; data.source must hold one <scene>.h5 per name")
    try:
        with h5py.File(path, "r") as file:
            missing = [key for key in ("GT", "wavelength_nm") if key not in file]
            if missing:
                raise UserError(
                    f"{path}: found keys {sorted(file)}, expected GT [bands, rows, columns] and "
                    f"wavelength_nm [bands]; {missing[0]} is missing"
                )
            raw, wavelengths = file["GT"][()], file["wavelength_nm"][()]
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read as HDF5 ({error}); the file is truncated or of another "
            "format: copy or prepare it again"
        ) from None
    if raw.ndim != 3 or wavelengths.shape != raw.shape[:1]:
        raise UserError(
            f"{path}: found GT {raw.shape} and wavelength_nm {wavelengths.shape}, expected "
            "[bands, rows, columns] and [bands] with equal band counts"
        )
    if np.issubdtype(raw.dtype, np.unsignedinteger):
        cube = raw.astype(np.float32) / np.float32(np.iinfo(raw.dtype).max)
    elif np.issubdtype(raw.dtype, np.floating):
        cube = raw.astype(np.float32)
    else:
        raise UserError(
            f"{path}: found GT of type {raw.dtype}, expected unsigned integers or floats in [0, 1]"
        )
    if not np.isfinite(cube).all():
        bad = int((~np.isfinite(cube)).sum())
        raise UserError(f"{path}: found {bad} NaN or inf values in GT, expected numbers in [0, 1]")
    if cube.min() < 0 or cube.max() > 1:
        raise UserError(
            f"{path}: found values from {cube.min():g} to {cube.max():g} in GT, expected [0, 1]; "
            "divide by the sensor's full scale (not by the image's maximum)"
        )
    return Scene(path.stem, cube, wavelengths.astype(np.float64), str(path))
