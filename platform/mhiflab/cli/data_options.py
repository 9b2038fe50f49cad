"""Options for what files do not say themselves, and the scenes that are read with them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from feinfn.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from feinfn.data.scene import Scene

FullScale = Annotated[
    float | None,
    typer.Option(help="Stored number that means 1, if the file does not say (4095, 10000)."),
]
Wavelengths = Annotated[
    str | None,
    typer.Option(
        metavar="FIRST:LAST:STEP",
        help="Band centres in nm, if the file does not say, e.g. 400:700:10.",
    ),
]


Key = Annotated[
    str | None, typer.Option(help="Array to read, if a file holds several (see inspect).")
]
Published = Annotated[
    str | None,
    typer.Option("--set", help="Read the file as this published set: indian_pines, jasper, ..."),
]
BandsAxis = Annotated[
    int | None, typer.Option(help="Axis that counts bands, if the shape does not say.")
]
Loaders = dict[str, Callable[[], "Scene"]]


def grid_nm(text: str | None) -> "np.ndarray | None":
    """Return the wavelengths that FIRST:LAST:STEP stands for."""
    import numpy as np

    if text is None:
        return None
    try:
        first, last, step = (float(word) for word in text.split(":"))
        nm = np.linspace(first, last, round((last - first) / step) + 1 if step > 0 else 0)
    except (ValueError, OverflowError):
        nm = np.empty(0)
    # The last band must lie on the grid: 400:705:10 would otherwise get another step unnoticed.
    if len(nm) == 0 or (len(nm) > 1 and not np.isclose(nm[1] - nm[0], step)):
        raise UserError(f"--wavelengths: found {text!r}, expected FIRST:LAST:STEP, as 400:700:10")
    return nm


def read_options(
    key: str | None, bands_axis: int | None, full_scale: float | None, wavelengths: str | None
) -> dict[str, Any]:
    """Return the given options as `read_any` takes them."""
    options = {
        "key": key,
        "bands_axis": bands_axis,
        "full_scale": full_scale,
        "wavelengths_nm": grid_nm(wavelengths),
    }
    return {name: value for name, value in options.items() if value is not None}


def loaders(path: Path, published: str | None, options: dict[str, Any]) -> Loaders:
    """Return name -> a call that reads it, for a store, a folder of scenes or one scene."""
    from feinfn.data.readers.known import read_known
    from feinfn.data.store import is_store, manifest, read_stored

    if is_store(path):
        return {name: partial(read_stored, path, name) for name in manifest(path)["scenes"]}
    if published:
        return {published: partial(read_known, published, path)}
    return {
        name: partial(read_named, name, file, options) for name, file in scenes_at(path).items()
    }


def scenes_at(path: Path) -> dict[str, Path]:
    """Return name -> path of every scene of a folder, or of those in one file.

    A prepared file (GT, LRHSI, RGB, HSI_up) of several images holds a scene each, numbered.
    """
    from feinfn.data.readers.formats import scenes_in

    scenes: dict[str, Path] = {}
    for name, file in (scenes_in(path) if path.is_dir() else {path.stem: path}).items():
        count = _images_in(file)
        numbered = [f"{name}_{i:05d}" for i in range(count)] if count > 1 else [name]
        scenes |= dict.fromkeys(numbered, file)
    return scenes


def _images_in(path: Path) -> int:
    """Return the images of a prepared file, 1 for every other layout."""
    from feinfn.data.readers.formats import kind_of
    from feinfn.data.readers.hdf5 import read_prepared

    try:
        return read_prepared(path).count if kind_of(path) == "prepared" else 1
    except UserError:
        # Whoever reads it says what is wrong with it.
        return 1


def read_named(name: str, path: Path, options: dict[str, Any]) -> "Scene":
    """Read one of the scenes of `scenes_at`."""
    from feinfn.data.readers.formats import read_any

    if "key" not in options and _images_in(path) > 1:
        options = {**options, "key": str(int(name.rsplit("_", 1)[1]))}
    return read_any(path, name=name, **options)
