"""Harvard scenes: .mat with `ref` [H, W, 31], 420 to 720 nm, and perhaps `lbl` and `calib`."""

from pathlib import Path

import numpy as np

from feinfn.data.readers.common import DEFAULTS, Options, bands_first
from feinfn.data.readers.mat import load_mat, mat_arrays
from feinfn.data.scene import Scene
from feinfn.errors import UserError

WAVELENGTHS_NM = np.arange(420.0, 721.0, 10.0)


def read_harvard(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read `ref` as it is; `lbl` (mask) and `calib` are reported in the notes, never applied.

    Values above 1 need `full_scale`. Raises `UserError` for another number of bands. Source:
    Chakrabarti and Zickler, "Statistics of real-world hyperspectral images", CVPR 2011.
    """
    arrays = mat_arrays(path)
    if "ref" not in arrays or arrays["ref"].shape[2:] != WAVELENGTHS_NM.shape:
        shown = {key: array.shape for key, array in arrays.items()}
        raise UserError(
            f"{path}: found {shown}, expected a Harvard scene, ref [rows, columns, 31]; name a "
            "variable with key to read the file as any other .mat"
        )
    raw = bands_first(path, load_mat(path, "ref"), -1, None)
    notes = tuple(
        f"The file also holds {key} {arrays[key].shape}; ref was taken as it is."
        for key in ("lbl", "calib")
        if key in arrays
    )
    return options.scene(raw, path, wavelengths_nm=WAVELENGTHS_NM, notes=notes)
