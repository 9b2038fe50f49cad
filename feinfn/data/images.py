"""Images in files of any kind: read, check and show them.

Legend: S bands, H rows, W columns.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feinfn.data.readers.array import DEFAULTS, Array, Options
from feinfn.data.readers.formats import open_file
from feinfn.data.readers.numbers import check_finite, numbers_of
from feinfn.data.scene import Scene
from feinfn.errors import UserError
from feinfn.files import write_atomic

FLOAT32 = ("cave", "sequence", "envi", "geotiff")
"""Layouts whose images have the precision of scenes; those of others keep the file's, or have 64
bits if the file holds integers."""


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
    array: Array | None = None
    """The array as its file describes it, with its georeference."""


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


def image_of(array: Array, options: Options = DEFAULTS, ascending: bool = True) -> Image:
    """Read an array [S, H, W] as an image; the user's facts override those of the file.

    If `ascending`, bands that descend by wavelength are turned.
    """
    if 0 in array.shape:
        raise UserError(f"{array.path}: found {array}, expected numbers")
    numbers = numbers_of(array, options, ascending)
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
        numbers.array,
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


def problems(scene: Scene) -> list[str]:
    """Return the notes of a scene's reader, and what seems to be wrong with it."""
    raw, full_scale, found = scene.raw_SHW, scene.full_scale, list(scene.notes)
    if scene.wavelengths_nm is None:
        found.append("no wavelengths: response tables by wavelength cannot be used")
    if flat := [str(band) for band, x in enumerate(raw, start=1) if x.min() == x.max()]:
        found.append(f"bands without content: {', '.join(flat)}")
    if (saturated := float((raw >= full_scale).mean())) > 0.001:
        found.append(f"{saturated:.1%} of the values are at the full scale: saturated")
    return found + little_used(float(raw.max()) / full_scale)


def little_used(share: float) -> list[str]:
    """Return a doubt about a full scale if the values use a small share of it, else nothing."""
    return [f"only {share:.1%} of its full scale is used; is that scale right?"] * (share < 1 / 8)


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
