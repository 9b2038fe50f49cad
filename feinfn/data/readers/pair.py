"""Real pairs: a measured HSI and a measured MSI of the same ground."""

from dataclasses import replace
from pathlib import Path

from feinfn.data.readers.common import DEFAULTS, Options, bands_first
from feinfn.data.readers.mat import load_mat, mat_arrays
from feinfn.data.scene import Scene
from feinfn.errors import UserError

HSI, MSI = "HSim", "MSim"


def read_pair(path: Path, options: Options = DEFAULTS, msi_key: str = MSI) -> Scene:
    """Read a .mat file with the HSI [h, w, S] (key, default `HSim`) and the MSI [H, W, M].

    Both are in units of one full scale. Raises `UserError` where a variable is missing or the MSI
    grid is not a whole number of times finer than the HSI grid.
    """
    arrays = mat_arrays(path)
    both = []
    for key in (options.key or HSI, msi_key):
        if key not in arrays or len(arrays[key].shape) != 3:
            shown = {name: array.shape for name, array in arrays.items()}
            raise UserError(
                f"{path}: found {shown}, expected {key} [rows, columns, bands]; name the HSI with "
                "key and the MSI with msi_key"
            )
        both.append(bands_first(path, load_mat(path, key), -1, None))
    hsi = options.scene(both[0], path)
    return join(hsi, replace(options, wavelengths_nm=None).scene(both[1], path))


def join(hsi: Scene, msi: Scene) -> Scene:
    """Return the HSI's scene with the MSI of another one (each in its own full scale).

    Raises `UserError` where the grids do not fit.
    """
    (h, w), (rows, cols) = hsi.raw_SHW.shape[1:], msi.raw_SHW.shape[1:]
    if rows % h or cols % w or rows // h != cols // w:
        raise UserError(
            f"{msi.source}: found an MSI of {rows}x{cols} pixels for an HSI of {h}x{w}, expected "
            "the same whole number of MSI pixels per HSI pixel along both axes; the two do not "
            "belong together, or one was cropped: register and crop them first"
        )
    return replace(hsi, msi_MHW=msi.cube(), notes=hsi.notes + msi.notes)
