"""Plain HDF5 scenes: `GT` [bands, rows, columns] and `wavelength_nm` [bands]."""

from pathlib import Path

import h5py

from feinfn.data.scene import Scene, make_scene
from feinfn.errors import UserError


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
    return make_scene(path.stem, raw, wavelengths, str(path))
