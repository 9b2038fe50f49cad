"""Shared parts of all readers: options, guarded reading, sizes and the order of axes.

Legend: S bands, H rows, W columns.
"""

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feinfn.data.scene import Scene, make_scene
from feinfn.errors import UserError

# Deflate shrinks by a factor of at most 1032; a file that claims more is broken or hostile.
MAX_EXPANSION = 1100


@dataclass(frozen=True, kw_only=True)
class Options:
    """Facts about a file that the user gives because the file does not."""

    key: str | None = None
    """The variable, dataset or (in a prepared file) index to read."""
    bands_axis: int | None = None
    """The axis that counts bands, in the axis order in which the format shows its arrays."""
    rows: int | None = None
    """Rows and columns of the image that a [bands, pixels] matrix holds column by column."""
    cols: int | None = None
    full_scale: float | None = None
    """The stored number that means 1."""
    wavelengths_nm: Sequence[float] | np.ndarray | None = None
    """Band centres in nm [S]."""
    name: str | None = None
    """Name of the scene."""

    def scene(
        self,
        raw_SHW: np.ndarray,
        path: Path,
        *,
        name: str | None = None,
        wavelengths_nm: Any = None,
        full_scale: float | None = None,
        notes: tuple[str, ...] = (),
    ) -> Scene:
        """Return the checked scene; the user's facts override those of the file."""
        return make_scene(
            self.name or name or path.stem,
            raw_SHW,
            wavelengths_nm if self.wavelengths_nm is None else self.wavelengths_nm,
            str(path),
            full_scale=full_scale if self.full_scale is None else self.full_scale,
            notes=notes,
        )


DEFAULTS = Options()


@dataclass(frozen=True)
class Array:
    """Shape and type of a stored array, without its numbers."""

    shape: tuple[int, ...]
    dtype: str


@contextmanager
def reading(path: Path, form: str) -> Iterator[None]:
    """Turn any error that a format's library raises for a bad file into a `UserError`."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the libraries raise almost every type for broken files
        text = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise UserError(
            f"{path}: cannot be read as {form} ({text}); the file is truncated or of another "
            "format: copy or prepare it again"
        ) from None


def read_head(
    path: Path, remedy: str = "look at the spelling, or name a file that exists"
) -> bytes:
    """Return a file's first 520 bytes; raise `UserError` if it is missing, unreadable or empty."""
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
    if is_folder(path):
        raise UserError(f"{path}: found a folder, expected a file; name a file in it")
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


def choose_array(
    path: Path, arrays: Mapping[str, Array], key: str | None, also: Sequence[str] = ()
) -> str:
    """Return the name of the array to read: `key`, or the only candidate.

    Candidates are 3-D arrays and the names in `also`, for formats that know others. Raises
    `UserError` if there is no such array, or more than one candidate.
    """
    shown = ", ".join(f"{k} {a.shape} {a.dtype}" for k, a in arrays.items()) or "no arrays"
    if key is not None:
        if key not in arrays:
            raise UserError(f"{path}: found {shown}, expected {key}; name one of these with key")
        return key
    candidates = [k for k, a in arrays.items() if len(a.shape) == 3 or k in also]
    if len(candidates) != 1:
        raise UserError(
            f"{path}: found {shown}, expected exactly one array with three axes; name the scene's "
            "with key"
        )
    return candidates[0]


def bands_first(path: Path, raw: np.ndarray, axis: int | None, bands: int | None) -> np.ndarray:
    """Return a 3-D array as [S, H, W].

    If `axis` is None, the bands are on the first or last axis: the only one with `bands` entries
    or, if that number is unknown, the only one at most half as long as both others. Otherwise
    raises `UserError`, because a guess would mix space and spectrum.
    """
    if raw.ndim != 3:
        raise UserError(
            f"{path}: found an array of shape {raw.shape}, expected three axes; name another "
            "array with key"
        )
    if axis is None:
        candidates = [
            a
            for a in (0, 2)
            if (
                raw.shape[a] == bands if bands else 2 * raw.shape[a] <= min(np.delete(raw.shape, a))
            )
        ]
        if len(candidates) != 1:
            which = f"which axis counts the {bands} bands" if bands else "which axis counts bands"
            raise UserError(
                f"{path}: found shape {raw.shape}, expected to be told {which}; say bands_axis=0 "
                "for [bands, rows, columns] or bands_axis=2 for [rows, columns, bands]"
            )
        axis = candidates[0]
    if axis not in range(-3, 3):
        raise UserError(f"{path}: found bands_axis {axis}, expected 0, 1 or 2")
    return np.moveaxis(raw, axis, 0)
