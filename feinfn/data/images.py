"""Images in files of any kind: read, write, check and show them.

Legend: S bands, H rows, W columns. .mat files hold [H, W, S], other arrays [S, H, W].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from feinfn.data.readers import arrays, hdf5, matlab
from feinfn.data.readers.common import bands_first
from feinfn.data.readers.formats import read_any
from feinfn.data.scene import Scene, check_finite
from feinfn.errors import UserError
from feinfn.files import write_atomic, write_hdf5

ARRAY_FILES = (".mat", ".npy", ".npz", ".h5", ".hdf5")
"""Suffixes of files that hold named arrays."""

WRITTEN = (".mat", ".npy", ".npz", ".h5")
"""Suffixes that `write_image` knows."""

NM = "wavelength_nm"
"""Name of the array of band centres."""

MAT_BYTES = 2**31 - 1
"""Largest variable of a version 5 .mat file, in bytes."""

MAT_HEAD = b"MATLAB 5.0 MAT-file, written by feinfn"
"""Start of a .mat file, in place of scipy's, which holds the time."""


@dataclass(frozen=True)
class Image:
    """An image of real numbers: floats as stored, integers as fractions of the full scale."""

    values_SHW: np.ndarray
    wavelengths_nm: np.ndarray | None
    """Band centres in nm [S]; None if the file has none."""


def read_image(
    path: Path,
    key: str | None = None,
    *,
    full_scale: float | None = None,
    bands_axis: int | None = None,
) -> Image:
    """Return the image of a file of any kind that scenes come in; its floats may have any range.

    `full_scale` is the stored number that means 1; by default it is the maximum of uint8 and
    uint16, and 1 for floats. Folders, ENVI and GeoTIFF are read as scenes. Raises `UserError` for a
    file, key, shape or type that does not fit.
    """
    if full_scale is not None and not 0 < full_scale < float("inf"):
        raise UserError(f"{path}: found full scale {full_scale:g}, expected a number > 0")
    if path.is_dir() or path.suffix.lower() not in ARRAY_FILES:
        scene = read_any(path, key=key, full_scale=full_scale, bands_axis=bands_axis)
        return Image(scene.cube(), scene.wavelengths_nm)
    shapes, load = _listed_arrays(path)
    names = [k for k, shape in shapes.items() if k == key or (key is None and len(shape) == 3)]
    if len(names) != 1:
        expected = "one array [bands, rows, columns]; choose one" if key is None else repr(key)
        raise UserError(f"{path}: found arrays {shapes}, expected {expected} with --key")
    name, raw = names[0], load(names[0])
    if raw.ndim != 3 or 0 in raw.shape or not np.issubdtype(raw.dtype, np.number):
        raise UserError(
            f"{path}: found {name} of shape {raw.shape} and type {raw.dtype}, expected three axes "
            "of real numbers"
        )
    default_axis = -1 if path.suffix.lower() == ".mat" else 0
    raw = bands_first(path, raw, default_axis if bands_axis is None else bands_axis, None)
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

    Raises `UserError` as `read_image` does, and for values beyond 2, which are in other units.
    """
    cube = read_image(path, key).values_SHW
    # A fused image may leave [0, 1] slightly; values in other units are far outside.
    if abs(cube).max() > 2:
        raise UserError(
            f"{path}: found values from {cube.min():g} to {cube.max():g}, expected [0, 1]; "
            "divide by the sensor's full scale"
        )
    return cube


def _listed_arrays(
    path: Path,
) -> tuple[dict[str, tuple[int, ...]], Callable[[str], np.ndarray]]:
    """Return the shapes of a file's arrays, axes as the format shows them, and a loader of one."""

    def load_hdf5(name: str) -> np.ndarray:
        with hdf5.open_hdf5(path) as file:
            return hdf5.load_dataset(path, file, name)

    kind = path.suffix.lower()
    load: Callable[[str], np.ndarray]
    if kind == ".mat":
        listed, load = matlab.mat_arrays(path), partial(matlab.load_mat, path)
    elif kind in (".npy", ".npz"):
        listed, load = arrays.numpy_arrays(path), partial(arrays.load_numpy, path)
    else:
        listed, load = hdf5.hdf5_arrays(path), load_hdf5
    return {key: array.shape for key, array in listed.items()}, load


def check_written(path: Path) -> None:
    """Raise `UserError` unless `write_image` knows the file's suffix."""
    if path.suffix.lower() not in WRITTEN:
        raise UserError(
            f"{path}: found suffix {path.suffix!r}, expected one of {', '.join(WRITTEN)}; choose "
            "another name"
        )


def write_image(
    path: Path, image: Image, name: str, origin: Mapping[str, str] | None = None
) -> None:
    """Write an image as float32 in the format of the file's suffix, whole or not at all.

    Equal images give equal files. The array is called `name`, beside `wavelength_nm`; .npy files
    hold the array alone. `origin` becomes attributes of .h5 files; the other formats have none.
    Raises `UserError` for another suffix, a full disk, and more than 2 GiB as .mat.
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
                # Replace the text at the start, which holds the time: equal images, equal bytes.
                file.seek(0)
                file.write(MAT_HEAD.ljust(116))

    if kind == ".h5":
        write_hdf5(path, fill)
    else:
        write_atomic(path, write)


@dataclass(frozen=True)
class Facts:
    """Facts about a scene for one line of a table; values are as stored."""

    name: str
    shape: tuple[int, int, int]
    kind: str
    low: float
    high: float
    full_scale: float
    bit_depth: int | None
    wavelengths: str
    problems: tuple[str, ...]

    @property
    def used_fraction(self) -> float:
        """The highest value as a fraction of the full scale."""
        return self.high / self.full_scale


def facts(scene: Scene) -> Facts:
    """Return the facts of a scene and the problems it seems to have."""
    raw, nm = scene.raw_SHW, scene.wavelengths_nm
    problems = list(scene.notes)
    if nm is None:
        problems.append("no wavelengths: response tables by wavelength cannot be used")
    flat = [band + 1 for band, x in enumerate(raw) if x.min() == x.max()]
    if flat:
        problems.append(f"bands without content: {', '.join(map(str, flat))}")
    saturated = float((raw >= scene.full_scale).mean())
    if saturated > 0.001:
        problems.append(f"{saturated:.1%} of the values are at the full scale: saturated")
    if raw.max() < scene.full_scale / 8:
        problems.append(
            f"only {raw.max() / scene.full_scale:.1%} of the full scale is used: is "
            f"{scene.full_scale:g} right?"
        )
    return Facts(
        name=scene.name,
        shape=raw.shape,
        kind=str(raw.dtype) + ("" if scene.msi_MHW is None else f" + MSI {scene.msi_MHW.shape}"),
        low=float(raw.min()),
        high=float(raw.max()),
        full_scale=scene.full_scale,
        bit_depth=scene.bit_depth,
        wavelengths="unknown" if nm is None else f"{nm[0]:g} to {nm[-1]:g} nm",
        problems=tuple(problems),
    )


def small_picture(scene: Scene, side_px: int) -> np.ndarray:
    """Return a small picture, uint8 [rows, columns, 3], at most `side_px` along each axis.

    White is the 99 % quantile of the values.
    """
    chosen = rgb_bands(len(scene.raw_SHW), scene.wavelengths_nm)
    step = -(-max(scene.raw_SHW.shape[1:]) // side_px)
    small = scene.raw_SHW[chosen, ::step, ::step].astype(np.float32)
    white = max(float(np.quantile(small, 0.99)), 1e-9)
    return colours(small, white)


def contact_sheet(pictures: list[np.ndarray], path: Path) -> None:
    """Save pictures as one PNG, five per row."""
    from PIL import Image

    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    columns = min(5, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    Image.fromarray(sheet).save(path, "PNG")


RGB_NM = (640.0, 550.0, 460.0)
"""Wavelengths shown as red, green and blue, in nm."""


def rgb_bands(bands: int, wavelengths_nm: np.ndarray | None) -> list[int]:
    """Return the bands nearest 640, 550 and 460 nm; without wavelengths, at 5/6, 1/2 and 1/6."""
    if wavelengths_nm is None:
        return [bands * sixths // 6 for sixths in (5, 3, 1)]
    return [int(np.abs(wavelengths_nm - nm).argmin()) for nm in RGB_NM]


def colours(bands_3HW: np.ndarray, white: float) -> np.ndarray:
    """Return three bands as uint8 [H, W, 3], gamma 2.2; `white` and above become 255."""
    shown = (bands_3HW / white).clip(0, 1) ** (1 / 2.2)
    return np.rint(255 * shown).astype(np.uint8).transpose(1, 2, 0)


def pseudo_rgb(
    cube_SHW: np.ndarray, wavelengths_nm: np.ndarray | None, white: float = 1.0
) -> np.ndarray:
    """Return a cube as a colour image, uint8 [H, W, 3]; `white` and above become 255."""
    return colours(cube_SHW[rgb_bands(len(cube_SHW), wavelengths_nm)], white)
