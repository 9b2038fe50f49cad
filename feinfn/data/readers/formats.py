"""Formats: recognise the layout of a file or folder by content, and open its arrays.

`open_file(path).array(options)` is the one way from a path to an array; scenes
(`feinfn.data.scene`) and images of a pair (`feinfn.data.images`) are both made of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feinfn.data.readers import geo, hdf5, known, mat5, numpy_files, sequence
from feinfn.data.readers.array import (
    DEFAULTS,
    NM,
    Array,
    Options,
    bands_first,
    choose,
    find,
    folder_entries,
    is_folder,
    read_head,
    reading,
)
from feinfn.data.readers.geo import PER_NM
from feinfn.errors import UserError

KINDS = {
    "cave": "CAVE folder: <scene>_ms_01.png to _31.png, 16 bit",
    "sequence": "folder of numbered grey images",
    "prepared": "prepared HDF5: GT, LRHSI, RGB, HSI_up [N, C, H, W]",
    "hdf5": "HDF5: GT [S, H, W] and wavelength_nm; NetCDF4 (EMIT), HDF-EOS5 (PRISMA)",
    "harvard": "Harvard .mat: ref [H, W, 31]",
    "pair": "real pair .mat: HSim and MSim",
    "mat": "MATLAB v5 or v7.3, or Octave: [H, W, S] or [S, H W]",
    "numpy": "NumPy .npy or .npz",
    "envi": "ENVI: .hdr and data file",
    "geotiff": "GeoTIFF with all bands",
}
"""Layouts, and a description of each."""

SUFFIXES = (".h5", ".hdf5", ".mat", ".npy", ".npz", ".tif", ".tiff", ".hdr")
"""Suffixes of files that are listed as scenes."""

HARVARD_NM = np.arange(420.0, 721.0, 10.0)
HSI, MSI = "HSim", "MSim"
"""Arrays of a real pair."""
CENTRES = ("wavelength", "wavelengths", "center_wavelength", "center_wavelengths")
"""Names of band centres in NetCDF files."""
_SIZE_NAMES = (("lines", "cols"), ("nRow", "nCol"), ("rows", "cols"), ("nr", "nc"))


@dataclass(frozen=True)
class File:
    """A file or folder that holds arrays, none of them read yet."""

    path: Path
    """File or folder, of ENVI header or data file."""
    kind: str
    """Its layout, one of `KINDS`."""
    arrays: Mapping[str, Array]
    """Name -> array, also of those inside groups and structs."""

    def array(self, options: Options = DEFAULTS, default_axis: int | None = None) -> Array:
        """Return the array that the options name, or the only candidate, as [S, H, W], unread.

        `default_axis` counts the bands if neither options nor file say which axis does. If a key is
        given, a Harvard scene or a pair is a file like any other. Raises `UserError`.
        """
        if self.kind in ("cave", "sequence", "envi", "geotiff"):
            return next(iter(self.arrays.values()))
        if self.kind == "prepared":
            return self._prepared_image(options)
        if self.kind == "harvard" and options.key is None:
            ref = self._harvard()
            return bands_first(ref, DEFAULTS if ref.wavelengths_from else options, default_axis)
        if self.kind == "hdf5" and options.key is None and "GT" in self.arrays:
            options = replace(options, key="GT")
        of_matlab = self.kind in ("mat", "harvard", "pair")
        rows, cols = self._image_size(options) if of_matlab else (0, 0)
        matrices = [k for k, a in self.arrays.items() if a.shape[1:] == (rows * cols,) and rows]
        array = choose(self.path, self.arrays, options, matrices)
        array = array if options.wavelengths_nm is not None else self._with_wavelengths(array)
        if len(array.shape) == 2 and of_matlab:
            return _image_of_matrix(array, rows, cols)
        return bands_first(array, options, default_axis)

    def _with_wavelengths(self, array: Array) -> Array:
        """Return an array with the band centres that stand beside it, or as NetCDF keeps them.

        There they have a unit, one name of several, and flags of good bands beside them.
        """
        if beside := find(self.arrays, f"{array.group}/{NM}") or find(self.arrays, NM):
            nm = np.ravel(beside.load(())).astype(np.float64)
            return replace(array, wavelengths_nm=nm, wavelengths_from=beside.key)
        lengths = [(n,) for n in array.shape]
        centres = [
            other
            for key, other in self.arrays.items()
            if key.rpartition("/")[2].lower() in CENTRES
            and other.shape in lengths
            and other.unit.lower() in PER_NM
        ]
        if self.kind != "hdf5" or array.wavelengths_nm is not None or len(centres) != 1:
            return array
        (stated,) = centres
        nm = stated.load(()).astype(np.float64) * PER_NM[stated.unit.lower()]
        good = find(self.arrays, f"{stated.group}/good_wavelengths")
        flags = good.load(()) if good and good.shape == stated.shape else np.ones(len(nm))
        return replace(
            array,
            wavelengths_nm=nm,
            wavelengths_from=stated.key,
            bad_bands=tuple(np.flatnonzero(flags == 0).tolist()),
        )

    def _prepared_image(self, options: Options) -> Array:
        """Return the only image of a prepared file, or the one whose index is the key."""
        images = known.check_prepared(self.path, self.arrays)
        if (options.key is None and images.count > 1) or not (options.key or "0").isdecimal():
            raise UserError(
                f"{self.path}: found a prepared file of {images.count} images and key "
                f"{options.key}, expected an index; say key=0 to key={images.count - 1}"
            )
        return images.image(int(options.key or 0))

    def _harvard(self) -> Array:
        """Return `ref` unchanged; `lbl` (mask) and `calib` are noted, never applied.

        Source: Chakrabarti and Zickler, "Statistics of real-world hyperspectral images", CVPR 2011.
        """
        notes = tuple(
            f"The file also holds {key} {self.arrays[key].shape}; ref was taken as it is."
            for key in ("lbl", "calib")
            if key in self.arrays
        )
        ref = self.arrays["ref"]
        if ref.shape[2:] != HARVARD_NM.shape:
            return ref
        return replace(ref, notes=notes, wavelengths_nm=HARVARD_NM, wavelengths_from="Harvard")

    def _image_size(self, options: Options) -> tuple[int, int]:
        """Return rows and columns of a matrix from the options, else from scalars, else zeros."""
        if options.rows is not None and options.cols is not None:
            return options.rows, options.cols
        for names in _SIZE_NAMES:
            if all(name in self.arrays and set(self.arrays[name].shape) == {1} for name in names):
                rows, cols = (self.arrays[name].load(()).item() for name in names)
                with reading(self.path, "an image's size"):
                    return int(rows), int(cols)
        return 0, 0


def _image_of_matrix(array: Array, rows: int, cols: int) -> Array:
    """Return a matrix [S, H W] of pixels column by column as [S, H, W]."""
    if array.shape[1] != rows * cols or rows < 1:
        raise UserError(
            f"{array.path}: found {array.key} of shape {array.shape} and an image of {rows} rows "
            f"and {cols} columns, expected [bands, rows * columns]; say rows and cols, or "
            "transpose the matrix"
        )
    shape = (array.shape[0], rows, cols)
    return replace(
        array,
        shape=shape,
        axes="SHW",
        load=lambda index: array.load(()).reshape(shape, order="F")[index],
    )


def open_file(path: Path) -> File:
    """Return a file or folder of any kind that is known, by content, without reading numbers.

    Raises `UserError` if none fits, and for damaged files.
    """
    if is_folder(path):
        bands, cave = sequence.band_arrays(path)
        return File(path, "cave" if cave else "sequence", bands)
    start = read_head(path)
    if mat5.is_mat5(start):
        return _mat(path, mat5.mat5_arrays(path))
    if hdf5.is_hdf5(start):
        arrays, turned = hdf5.hdf5_arrays(path)
        if turned:
            return _mat(path, arrays)
        return File(path, "prepared" if arrays.keys() >= set(known.KEYS) else "hdf5", arrays)
    if start.startswith((numpy_files.NPY, numpy_files.NPZ)):
        return File(path, "numpy", numpy_files.numpy_arrays(path))
    if start.startswith(geo.TIFF) or geo.envi_header(path):
        kind = "geotiff" if start.startswith(geo.TIFF) else "envi"
        return File(path, kind, geo.raster_arrays(path))
    raise UserError(
        f"{path}: found a file that starts with {start[:8]!r}, expected one of: "
        + "; ".join(KINDS.values())
        + "; the file is damaged or of another format (of an image sequence, name the folder)"
    )


def _mat(path: Path, arrays: Mapping[str, Array]) -> File:
    if "ref" in arrays and len(arrays["ref"].shape) == 3:
        return File(path, "harvard", arrays)
    return File(path, "pair" if {HSI, MSI} <= arrays.keys() else "mat", arrays)


def read_prepared(path: Path) -> known.Prepared:
    """Return a prepared file, checked but not read; raise `UserError` if it is none."""
    return known.check_prepared(path, open_file(path).arrays)


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
