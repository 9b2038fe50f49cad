"""CAVE in its original layout: `<scene>_ms/<scene>_ms/<scene>_ms_NN.png`, or one level less."""

from pathlib import Path

import numpy as np

from feinfn.data.readers.common import DEFAULTS, Options
from feinfn.data.readers.sequence import band_files, check_numbers, read_bands
from feinfn.data.scene import Scene
from feinfn.errors import UserError

WAVELENGTHS_NM = np.arange(400.0, 701.0, 10.0)


def read_cave(path: Path, options: Options = DEFAULTS) -> Scene:
    """Read a CAVE scene: 31 grey PNGs of 16 bits, 400 to 700 nm; other files are ignored.

    `path` is the inner or the outer folder. `watercolors_ms` is stored with 8 bits, which the
    scene's notes say. Raises `UserError` naming missing, extra or doubled bands, mixed bit depths
    and colour. Source: Yasuma et al., IEEE TIP 2010.
    """
    prefix, files = band_files(path)
    if not prefix.lower().endswith("_ms"):
        raise UserError(
            f"{path}: found images named {prefix!r}, expected a CAVE scene, <scene>_ms_01.png to "
            "<scene>_ms_31.png; name the scene's folder"
        )
    check_numbers(path, files, range(1, len(WAVELENGTHS_NM) + 1))
    raw_SHW, notes = read_bands(files, options.full_scale)
    return options.scene(raw_SHW, path, name=prefix, wavelengths_nm=WAVELENGTHS_NM, notes=notes)
