"""Images in files of any kind: read, write, check and show them.

Legend: S bands, H rows, W columns. MATLAB's files hold [H, W, S], others [S, H, W].
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from feinfn.data.readers.array import DEFAULTS, NM, Array, Options
from feinfn.data.readers.formats import open_file
from feinfn.data.readers.numbers import check_finite, numbers_of
from feinfn.data.scene import Scene
from feinfn.errors import UserError
from feinfn.files import write_atomic, write_hdf5

WRITTEN = (".mat", ".npy", ".npz", ".h5")
"""Suffixes that `write_image` knows."""

FLOAT32 = ("cave", "sequence", "envi", "geotiff")
"""Layouts whose images have the precision of scenes; those of others keep the file's, or have 64
bits if the file holds integers."""

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
    path: Path = Path()
    """File from which it was read."""
    valid_HW: np.ndarray | None = None
    """False for pixels without data, whose values are 0; None if every pixel has data."""
    notes: tuple[str, ...] = ()
    """Facts of the file that were used, one sentence each."""


def read_image(path: Path, options: Options = DEFAULTS) -> Image:
    """Return the image of a file of any kind that scenes come in; its floats may have any range.

    The bands of an array whose file does not say its axes are on the first one. Raises `UserError`
    for a file, key, shape or type that does not fit.
    """
    file = open_file(path)
    image = image_of(file.array(options, default_axis=0), options)
    if file.kind in FLOAT32:
        return replace(image, values_SHW=image.values_SHW.astype(np.float32))
    return image


def image_of(array: Array, options: Options = DEFAULTS) -> Image:
    """Read an array [S, H, W] as an image; the user's facts override those of the file."""
    if 0 in array.shape:
        raise UserError(f"{array.path}: found {array}, expected numbers")
    numbers = numbers_of(array, options)
    raw = numbers.raw_SHW
    check_finite(raw, f"{array.path}: {array.key}")
    nm = numbers.wavelengths_nm
    if options.wavelengths_nm is not None and nm is not None and len(nm) != len(raw):
        raise UserError(
            f"--wavelengths: found {len(nm)} of them, expected {len(raw)}, one a band of "
            f"{array.path}"
        )
    return Image(
        raw / numbers.full_scale,
        nm if nm is not None and len(nm) == len(raw) else None,
        array.path,
        numbers.valid_HW,
        numbers.notes,
    )


def read_cube(path: Path, options: Options = DEFAULTS) -> Image:
    """Return the image [S, H, W] of a file of any kind that scenes come in, about in [0, 1].

    Raises `UserError` as `read_image` does, and for values beyond 2, which are in other units.
    """
    image = read_image(path, options)
    cube = image.values_SHW
    # A fused image may leave [0, 1] slightly; values in other units are far outside.
    if abs(cube).max() > 2:
        raise UserError(
            f"{path}: found values from {cube.min():g} to {cube.max():g}, expected [0, 1]; "
            f"divide by the sensor's full scale (--{options.prefix}full-scale)"
        )
    return image


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


def problems(scene: Scene) -> list[str]:
    """Return the notes of a scene's reader, and what seems to be wrong with it."""
    raw, full_scale, found = scene.raw_SHW, scene.full_scale, list(scene.notes)
    if scene.wavelengths_nm is None:
        found.append("no wavelengths: response tables by wavelength cannot be used")
    if flat := [str(band) for band, x in enumerate(raw, start=1) if x.min() == x.max()]:
        found.append(f"bands without content: {', '.join(flat)}")
    if (saturated := float((raw >= full_scale).mean())) > 0.001:
        found.append(f"{saturated:.1%} of the values are at the full scale: saturated")
    if (used := raw.max() / full_scale) < 1 / 8:
        found.append(f"only {used:.1%} of the full scale is used: is {full_scale:g} right?")
    return found


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
    write_atomic(path, lambda partial: Image.fromarray(sheet).save(partial, "PNG"))


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
