"""Formats: recognise the layout of a file or folder by content, and read it as a `Scene`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feinfn.data.readers import arrays, geo, hdf5, matlab, sequence
from feinfn.data.readers.common import Array, Options, folder_entries, is_folder, read_head
from feinfn.data.scene import Scene
from feinfn.errors import UserError


@dataclass(frozen=True)
class Kind:
    """A layout: description, reader, and lister of its arrays."""

    about: str
    read: Callable[[Path, Options], Scene]
    arrays: Callable[[Path], dict[str, Array]]


def _images(path: Path) -> dict[str, Array]:
    return {file.name: Array((), "image") for file in sequence.band_files(path)[1].values()}


KINDS = {
    "cave": Kind("CAVE folder: <scene>_ms_01.png to _31.png, 16 bit", sequence.read_cave, _images),
    "sequence": Kind("folder of numbered grey images", sequence.read_sequence, _images),
    "prepared": Kind(
        "prepared HDF5: GT, LRHSI, RGB, HSI_up [N, C, H, W]",
        hdf5.read_prepared_image,
        hdf5.hdf5_arrays,
    ),
    "hdf5": Kind("HDF5: GT [S, H, W] and wavelength_nm", hdf5.read_hdf5, hdf5.hdf5_arrays),
    "harvard": Kind("Harvard .mat: ref [H, W, 31]", matlab.read_harvard, matlab.mat_arrays),
    "pair": Kind("real pair .mat: HSim and MSim", matlab.read_pair, matlab.mat_arrays),
    "mat": Kind("MATLAB v5 or v7.3: [H, W, S] or [S, H W]", matlab.read_mat, matlab.mat_arrays),
    "numpy": Kind("NumPy .npy or .npz", arrays.read_numpy, arrays.numpy_arrays),
    "envi": Kind("ENVI: .hdr and data file", geo.read_raster, geo.raster_arrays),
    "geotiff": Kind("GeoTIFF with all bands", geo.read_raster, geo.raster_arrays),
}

SUFFIXES = (".h5", ".hdf5", ".mat", ".npy", ".npz", ".tif", ".tiff", ".hdr")
"""Suffixes of files that are listed as scenes."""


def kind_of(path: Path) -> str:
    """Return the name of a path's layout in `KINDS`, by content; raise `UserError` if none fits."""
    if is_folder(path):
        prefix, files = sequence.band_files(path)
        if files:
            return "cave" if prefix.lower().endswith("_ms") else "sequence"
        raise UserError(
            f"{path}: found a folder without numbered images, expected a scene; name a scene in it"
        )
    start = read_head(path)
    if matlab.is_mat5(start):
        return _kind_of_mat(path)
    if hdf5.is_hdf5(start):
        with hdf5.open_hdf5(path) as file:
            keys, of_matlab = set(hdf5.arrays_in(file)), hdf5.is_matlab(start, file)
        if of_matlab:
            return _kind_of_mat(path)
        return "prepared" if keys >= set(hdf5.KEYS) else "hdf5"
    if start.startswith((arrays.NPY, arrays.NPZ)):
        return "numpy"
    if start.startswith(geo.TIFF):
        return "geotiff"
    if geo.envi_header(path):
        return "envi"
    raise UserError(
        f"{path}: found a file that starts with {start[:8]!r}, expected one of: "
        + "; ".join(kind.about for kind in KINDS.values())
        + "; the file is damaged or of another format (of an image sequence, name the folder)"
    )


def _kind_of_mat(path: Path) -> str:
    listed = matlab.mat_arrays(path)
    if "ref" in listed and len(listed["ref"].shape) == 3:
        return "harvard"
    return "pair" if {matlab.HSI, matlab.MSI} <= listed.keys() else "mat"


def read_any(
    path: Path,
    *,
    key: str | None = None,
    bands_axis: int | None = None,
    rows: int | None = None,
    cols: int | None = None,
    full_scale: float | None = None,
    wavelengths_nm: Sequence[float] | np.ndarray | None = None,
    name: str | None = None,
) -> Scene:
    """Read a scene of any kind, recognised by content; options state facts the file lacks.

    If a key is given, a .mat file is read as a plain variable, not as a Harvard scene or a pair.
    Raises `UserError`.
    """
    options = Options(
        key=key,
        bands_axis=bands_axis,
        rows=rows,
        cols=cols,
        full_scale=full_scale,
        wavelengths_nm=wavelengths_nm,
        name=name,
    )
    kind = kind_of(path)
    if key is not None and kind in ("harvard", "pair"):
        kind = "mat"
    return KINDS[kind].read(path, options)


def _sequence_name(folder: Path, least: int = 1) -> str | None:
    """Return the name of a folder's image sequence; None if it has fewer than `least` bands."""
    try:
        prefix, files = sequence.band_files(folder)
    except UserError:
        return folder.resolve().name  # listed nevertheless, so that reading it reports the problem
    return (prefix or folder.resolve().name) if len(files) >= max(least, 1) else None


def scenes_in(folder: Path) -> dict[str, Path]:
    """Return name -> path of every scene in a folder, by name, without reading them.

    Scenes are files with a known suffix and folders of numbered images (both nestings of CAVE); the
    folder may itself be such a scene. Raises `UserError` for a folder without scenes, and for two
    scenes of one name.
    """
    if not is_folder(folder):
        raise UserError(f"{folder}: no such folder; name one that holds scenes")
    scenes: dict[str, Path] = {}
    for path in folder_entries(folder):
        if path.name.startswith("."):
            continue
        name = path.stem if path.suffix.lower() in SUFFIXES else None
        if is_folder(path):
            name = _sequence_name(path)
        if name in scenes:
            raise UserError(
                f"{path}: found a second scene named {name} (also {scenes[name].name}), expected "
                "one; move one of them elsewhere"
            )
        if name is not None:
            scenes[name] = path
    if all(path.suffix.lower() in (".tif", ".tiff") for path in scenes.values()):
        sequence_name = _sequence_name(folder, len(scenes))
        scenes = {sequence_name: folder} if sequence_name else scenes
    if not scenes:
        raise UserError(
            f"{folder}: found no scenes, expected files ({', '.join(SUFFIXES)}) or folders of "
            "numbered images; name the folder that holds them"
        )
    return scenes
