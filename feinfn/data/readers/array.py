"""Arrays of files: shape, type and meaning as the file says them; the numbers are read later.

Legend: N images, S bands, H rows, W columns.
"""

import importlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from feinfn.errors import UserError

# Deflate shrinks by a factor of at most 1032; a file that claims more is broken or hostile.
MAX_EXPANSION = 1100

NM = "wavelength_nm"
"""Name of the array of band centres beside an image."""

Index = tuple[Any, ...]
"""One number or slice an axis, from the first on; of rasters, rows and columns are slices without a
step."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Facts about a file that the user gives because the file does not."""

    key: str | None = None
    """The array to read, or (in a prepared file) the index of the image."""
    bands_axis: int | None = None
    """The axis that counts bands, in the axis order in which the format shows its arrays."""
    rows: int | None = None
    """Rows and columns of the image that a [bands, pixels] matrix holds column by column."""
    cols: int | None = None
    full_scale: float | None = None
    """The stored number that means 1."""
    no_data: float | None = None
    """The stored number that means that there is none."""
    wavelengths_nm: Sequence[float] | np.ndarray | None = None
    """Band centres in nm [S]."""
    prefix: str = ""
    """Prefix of the names of these options on the command line, e.g. `msi-`."""


DEFAULTS = Options()


@dataclass(frozen=True, kw_only=True, eq=False)
class Array:
    """An array of a file: its numbers, unread, and everything that the file says about them.

    The file's scale and offset, nodata value and bad bands are carried, not applied.
    """

    path: Path
    """File or folder that holds it."""
    key: str
    """Name inside the file, as an option `--key` takes it: `cube`, `info.cube`, `group/data`."""
    shape: tuple[int, ...]
    """Axes as the program shows them that writes such files."""
    dtype: np.dtype
    """Type of the stored numbers; of 8-bit images in a folder, uint16."""
    load: Callable[[Index], np.ndarray]
    """Read a window, e.g. `load((0,))`; `load(())` reads everything. HDF5 and rasters touch that
    part of the file alone."""
    axes: str = ""
    """One letter an axis as in the legend, e.g. `HWS`; empty if the file does not say."""
    name: str = ""
    """Name for a scene made of it; empty for the file's own."""
    group: str = ""
    """Group or struct that holds it; empty at the top level."""
    notes: tuple[str, ...] = ()
    """Remarks of the reader about peculiarities and corrections, one sentence each."""
    full_scale: float | None = None
    """The stored number that means 1, as ENVI's reflectance scale factor."""
    scale: tuple[float, ...] = ()
    """The quantity is stored * scale + offset; one number for all bands, or one a band."""
    offset: tuple[float, ...] = ()
    """Added after the scale, in the same numbers."""
    nodata: float | None = None
    """The stored number that means that there is none."""
    also_nodata: float | None = None
    """Another such number, NetCDF's `missing_value` beside `_FillValue`."""
    valid_range: tuple[float, float] | None = None
    """The smallest and largest stored number that is one; others mean that there is none."""
    load_valid: Callable[[], np.ndarray] | None = None
    """Read the file's mask [H, W], True where there are data; None if it has none."""
    wavelengths_nm: np.ndarray | None = None
    """Band centres in nm, as the file or its published layout says them."""
    unit: str = ""
    """Unit of the numbers, as the file states it."""
    unit_unknown: bool = False
    """True if the file states wavelengths without their unit."""
    wavelengths_from: str = ""
    """Place that says the wavelengths: `ENVI`, `CAVE`, `Harvard` or the name of an array."""
    bad_bands: tuple[int, ...] = ()
    """Bands marked as bad, counted from 0."""
    band_names: tuple[str, ...] = ()
    """Names of the bands, as the header gives them."""
    colours: tuple[str, ...] = ()
    """Colour that each band shows, e.g. `red`."""
    crs: str | None = None
    """Coordinate reference system, as `EPSG:32633` or WKT."""
    transform: tuple[float, ...] | None = None
    """Affine map from (column, row) to coordinates, six numbers in rasterio's order."""

    @property
    def nodata_values(self) -> list[float]:
        """The stored numbers that mean that there is none."""
        return [x for x in (self.nodata, self.also_nodata) if x is not None]

    def __str__(self) -> str:
        return f"{self.key} {self.shape} {self.dtype}"


@contextmanager
def reading(path: Path, form: str) -> Iterator[None]:
    """Turn any error that a format's library raises for a bad file into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the libraries raise almost every type for broken files
        text = (str(error).splitlines() or [""])[0] or type(error).__name__
        if "unable to lock file" in text or "already open for write" in text:
            raise UserError(
                f"{path}: found it held open for writing by another program ({text}), expected a "
                "finished file; close it there, or wait until it is written"
            ) from None
        raise UserError(
            f"{path}: cannot be read as {form} ({text}); the file is truncated or of another "
            "format: copy or prepare it again"
        ) from None


def read_head(path: Path) -> bytes:
    """Return a file's first 520 bytes; raise `UserError` if it is missing, unreadable or empty."""
    remedy = "look at the spelling, or name a file that exists"
    try:
        if path.is_file():  # reading a pipe would block, reading a device would not end
            with path.open("rb") as file:
                if start := file.read(520):
                    return start
            raise UserError(f"{path}: found an empty file, expected a scene; copy or make it again")
    except PermissionError:
        raise _forbidden(path) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error}), expected a file; {remedy}") from None
    raise UserError(f"{path}: no such file; {remedy}")


def is_folder(path: Path) -> bool:
    """Return True for a folder, False for anything else and if access is denied."""
    try:
        return path.is_dir()
    except OSError:
        return False


def folder_entries(folder: Path) -> list[Path]:
    """Return the paths in a folder, by name; raise `UserError` if it may not be read."""
    try:
        return sorted(folder.iterdir())
    except PermissionError:
        raise _forbidden(folder) from None


def _forbidden(path: Path) -> UserError:
    return UserError(
        f"{path}: found no permission to read it, expected a readable file or folder; ask its "
        "owner, or change its mode"
    )


def import_optional(path: Path, module: str, install: str) -> Any:
    """Import an optional library; raise `UserError` with the install command if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"{path}: found no {module}, expected it for files of this format; run: pip install "
            f"'{install}'"
        ) from None


def check_size(path: Path, what: str, shape: Sequence[int], itemsize: int, stored: int) -> None:
    """Raise `UserError` if an array claims more than `stored` bytes could hold, or is empty."""
    if min(shape, default=0) <= 0 or math.prod(shape) * itemsize > MAX_EXPANSION * stored:
        raise UserError(
            f"{path}: found {what} of shape {tuple(shape)} in {stored} bytes, expected a non-empty "
            "array that fits its file; the file is damaged or was never filled: prepare it again"
        )


def find(arrays: Mapping[str, Array], key: str) -> Array | None:
    """Return an array by its key; `/group/data`, `group/data` and `group.data` are the same."""

    def plain(name: str) -> str:
        return name.strip("/").replace("/", ".")

    alike = [a for k, a in arrays.items() if plain(k) == plain(key)]
    return arrays.get(key) or (alike[0] if len(alike) == 1 else None)


def choose(
    path: Path, arrays: Mapping[str, Array], options: Options, also: Sequence[str] = ()
) -> Array:
    """Return the array that the key names, or the only candidate.

    Candidates are arrays with three axes at the top level, and those whose keys are in `also`.
    Raises `UserError` if there is no such array, or more than one candidate; it names those that
    lie inside a group or struct.
    """
    option = f"--{options.prefix}key"
    names = [str(array) for array in arrays.values()]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    shown = f"arrays {', '.join(names[:10])}{more}" if names else "no arrays"
    cubes = [a for a in arrays.values() if len(a.shape) == 3]
    if options.key is not None:
        if array := find(arrays, options.key):
            return array
        inside = [a for a in cubes if f"{a.group}/".startswith(f"{options.key.strip('/')}/")]
        remedy = f"name one of these with {option}"
        if len(inside) == 1:
            remedy = f"say {option} {inside[0].key}"
        raise UserError(f"{path}: found {shown}, expected {options.key}; {remedy}")
    candidates = [a for a in arrays.values() if (a in cubes and not a.group) or a.key in also]
    if len(candidates) == 1:
        return candidates[0]
    remedy = f"name one with {option}"
    if not candidates and len(cubes) == 1:
        remedy = f"one lies inside {cubes[0].group}: say {option} {cubes[0].key}"
    raise UserError(f"{path}: found {shown}, expected exactly one array with three axes; {remedy}")


def bands_first(array: Array, options: Options, default_axis: int | None = None) -> Array:
    """Return an array of three axes as [S, H, W], still unread.

    The axis of the bands is the user's, else the file's, else `default_axis`, else the only one of
    first and last with as many entries as there are wavelengths or, without any, the only one at
    most half as long as both others. Otherwise raises `UserError`, because a guess would mix space
    and spectrum.
    """
    shape, where = array.shape, f"{array.path}: found {array.key} of shape {array.shape}"
    if len(shape) != 3:
        raise UserError(
            f"{where}, expected three axes, bands, rows and columns; name another array with "
            f"--{options.prefix}key"
        )
    axis = options.bands_axis
    if axis is None:
        axis = array.axes.index("S") if "S" in array.axes else default_axis
    if axis is None:
        nm = array.wavelengths_nm
        bands = len(nm) if nm is not None and len(nm) in shape else None
        bands = bands if options.wavelengths_nm is None else len(options.wavelengths_nm)
        fits = [
            shape[a] == bands if bands else 2 * shape[a] <= min(np.delete(shape, a)) for a in (0, 2)
        ]
        if sum(fits) != 1:
            which = f"which axis counts the {bands} bands" if bands else "which axis counts bands"
            raise UserError(
                f"{where}, expected to be told {which}; say bands_axis=0 for [bands, rows, "
                "columns] or bands_axis=2 for [rows, columns, bands]"
            )
        axis = 0 if fits[0] else 2
    if axis not in range(-3, 3):
        raise UserError(f"{array.path}: found bands_axis {axis}, expected 0, 1 or 2")
    if axis in (0, -3):
        return replace(array, axes="SHW")
    size = [n for i, n in enumerate(shape) if i != axis % 3]
    return replace(
        array,
        shape=(shape[axis], *size),
        axes="SHW",
        load=lambda index: np.moveaxis(array.load(()), axis, 0)[index],
    )
