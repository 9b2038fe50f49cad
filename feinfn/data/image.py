"""One image in a file of any kind, with its axes where the format has them.

Legend: S bands, H rows, W columns. .mat files hold [H, W, S], other arrays [S, H, W].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from feinfn.data.readers import arrays, hdf5, mat, read_any
from feinfn.data.readers.common import bands_first
from feinfn.data.scene import check_finite
from feinfn.errors import UserError
from feinfn.files import write_atomic, write_hdf5

ARRAY_FILES = (".mat", ".npy", ".npz", ".h5", ".hdf5")
WRITTEN = (".mat", ".npy", ".npz", ".h5")
NM = "wavelength_nm"
MAT_BYTES = 2**31 - 1
"""Longest variable of a version 5 .mat file."""
MAT_HEAD = b"MATLAB 5.0 MAT-file, written by feinfn"


@dataclass(frozen=True)
class Image:
    """Real numbers [S, H, W], floats as stored or integers as fractions of the full scale."""

    values_SHW: np.ndarray
    wavelengths_nm: np.ndarray | None
    """Band centres in nm [S], where the file says them."""


def read_image(
    path: Path,
    key: str | None = None,
    *,
    full_scale: float | None = None,
    bands_axis: int | None = None,
) -> Image:
    """Return the image of a file of any kind that scenes come in, its floats in any range.

    `full_scale` is the stored number that means 1, by default the maximum of uint8 and uint16, and
    1 for floats. Folders, ENVI and GeoTIFF are read as scenes. Raises `UserError` for a file, key,
    shape or type that does not fit.
    """
    if full_scale is not None and not 0 < full_scale < float("inf"):
        raise UserError(f"{path}: found full scale {full_scale:g}, expected a number > 0")
    if path.is_dir() or path.suffix.lower() not in ARRAY_FILES:
        scene = read_any(path, key=key, full_scale=full_scale, bands_axis=bands_axis)
        return Image(scene.cube(), scene.wavelengths_nm)
    shapes, load = _listed_arrays(path)
    names = [k for k, shape in shapes.items() if k == key or (key is None and len(shape) == 3)]
    if len(names) != 1:
        wanted = "one array [bands, rows, columns]; choose one" if key is None else repr(key)
        raise UserError(f"{path}: found arrays {shapes}, expected {wanted} with --key")
    name, raw = names[0], load(names[0])
    if raw.ndim != 3 or 0 in raw.shape or not np.issubdtype(raw.dtype, np.number):
        raise UserError(
            f"{path}: found {name} of shape {raw.shape} and type {raw.dtype}, expected three axes "
            "of real numbers"
        )
    usual = -1 if path.suffix.lower() == ".mat" else 0
    raw = bands_first(path, raw, usual if bands_axis is None else bands_axis, None)
    if np.issubdtype(raw.dtype, np.floating):
        check_finite(raw, f"{path}: {name}")
    elif full_scale is None or not np.issubdtype(raw.dtype, np.integer):
        if raw.dtype not in (np.uint8, np.uint16):
            raise UserError(
                f"{path}: found {name} of type {raw.dtype}, expected uint8, uint16 or floats in "
                "[0, 1]"
            )
        full_scale = float(np.iinfo(raw.dtype).max)
    nm = np.ravel(load(NM)).astype(np.float64) if NM in shapes else None
    values = raw if full_scale is None else raw / full_scale
    return Image(values, nm if nm is not None and len(nm) == len(raw) else None)


def read_cube(path: Path, key: str | None = None) -> np.ndarray:
    """Return the image [S, H, W] of a file of any kind that scenes come in, about in [0, 1].

    Raises `UserError` as `read_image` does, and for values in other units.
    """
    cube = read_image(path, key).values_SHW
    # A fused image may leave [0, 1] a little; other units are far away.
    if abs(cube).max() > 2:
        raise UserError(
            f"{path}: found values from {cube.min():g} to {cube.max():g}, expected [0, 1]; "
            "divide by the sensor's full scale"
        )
    return cube


def _listed_arrays(
    path: Path,
) -> tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]:
    """Return the shapes of a file's arrays as the format shows them, and how to load one."""

    def load_hdf5(name: str) -> np.ndarray:
        with hdf5.opened(path) as file:
            return hdf5.load(path, file, name)

    kind = path.suffix.lower()
    load: Callable[[str], np.ndarray]
    if kind == ".mat":
        found, load = mat.mat_arrays(path), partial(mat.load_mat, path)
    elif kind in (".npy", ".npz"):
        found, load = arrays.numpy_arrays(path), partial(arrays.load_numpy, path)
    else:
        found, load = hdf5.hdf5_arrays(path), load_hdf5
    return {key: array.shape for key, array in found.items()}, load


def check_written(path: Path) -> None:
    """Raise `UserError` unless the file's suffix is one that `write_image` knows."""
    if path.suffix.lower() not in WRITTEN:
        raise UserError(
            f"{path}: found suffix {path.suffix!r}, expected one of {', '.join(WRITTEN)}; choose "
            "another name"
        )


def write_image(
    path: Path, image: Image, name: str, origin: Mapping[str, str] | None = None
) -> None:
    """Write an image as float32 by the file's suffix, whole or not at all; equal images alike.

    The array is called `name` beside `wavelength_nm`; .npy files hold it alone. Where it is from
    is said in attributes of .h5 files; the other formats have none. Raises `UserError` for another
    suffix, a full disk, and more than 2 GiB as .mat.
    """
    check_written(path)
    kind, values = path.suffix.lower(), image.values_SHW.astype(np.float32, copy=False)
    about = {} if image.wavelengths_nm is None else {NM: image.wavelengths_nm}
    if kind == ".mat" and values.nbytes > MAT_BYTES:
        raise UserError(
            f"{path}: found an image of {values.nbytes / 2**30:.1f} GiB, expected less than 2 GiB, "
            "the limit of version 5 .mat files; write it as .h5"
        )

    def fill(file: h5py.File) -> None:
        for key, array in {name: values, **about}.items():
            file.create_dataset(key, data=array)
        file.attrs.update(origin or {})

    def write(partial_file: Path) -> None:
        from scipy.io import savemat

        with partial_file.open("wb") as file:
            if kind == ".npy":
                np.save(file, values)
            elif kind == ".npz":
                np.savez(file, **{name: values, **about})  # type: ignore[arg-type]
            else:
                savemat(file, {name: np.moveaxis(values, 0, -1), **about})
                # The text at its start, which holds the time.
                file.seek(0)
                file.write(MAT_HEAD.ljust(116))

    if kind == ".h5":
        write_hdf5(path, fill)
    else:
        write_atomic(path, write)
