"""Scenes: one hyperspectral cube in [0, 1] each, the result of every reader.

Legend: S bands, M MSI bands, H rows, W columns.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from feinfn.data.readers.array import DEFAULTS, Array, Options
from feinfn.data.readers.formats import HSI, MSI, File, open_file
from feinfn.data.readers.known import KNOWN
from feinfn.data.readers.numbers import check_finite, full_scale_of, numbers_of
from feinfn.errors import UserError
from feinfn.region import Region, in_all, largest_window


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One HR-HSI as stored, and the facts needed to read it as reflectance in [0, 1].

    Stored numbers keep their type, so that a scene is kept without loss and shared between
    processes without copies.
    """

    name: str
    raw_SHW: np.ndarray
    """uint8, uint16 or float32, at most `full_scale`."""
    full_scale: float
    """The stored number that means 1."""
    wavelengths_nm: np.ndarray | None
    """Band centres in nm [S], ascending, float64; None if the source has none."""
    source: str
    """File or folder from which the scene was read."""
    bit_depth: int | None = None
    """Bits of the sensor's numbers; None for floats of unknown origin."""
    msi_MHW: np.ndarray | None = None
    """A measured MSI, float32 in [0, 1], if the scene is a real pair. It lies on the cube's own
    grid, or on one a whole number of times finer (then the cube is the LR-HSI, and there is no
    reference)."""
    valid_HW: np.ndarray | None = None
    """False for pixels without data in the cube, whose numbers are 0, or in the MSI on their
    ground; None if every pixel has data."""
    notes: tuple[str, ...] = ()
    """Remarks of the reader about peculiarities and corrections, one sentence each."""

    def cube(self) -> np.ndarray:
        """Return the cube as float32 [S, H, W] in [0, 1]."""
        return scaled(self.raw_SHW, self.full_scale)

    def window(self, rows: tuple[int, int], columns: tuple[int, int]) -> "Scene":
        """Return the window [first, last) of the scene, a measured MSI cut to the same ground.

        Raises `UserError` for a window that is empty or reaches outside.
        """
        height, width = self.raw_SHW.shape[1:]
        if not (0 <= rows[0] < rows[1] <= height and 0 <= columns[0] < columns[1] <= width):
            raise UserError(
                f"{self.source}: found a window {rows}, {columns}, expected rows within "
                f"[0, {height}) and columns within [0, {width}); name a window inside it"
            )

        def cut(x: np.ndarray) -> np.ndarray:
            finer = x.shape[1] // height
            spans = (slice(first * finer, last * finer) for first, last in (rows, columns))
            return np.ascontiguousarray(x[(slice(None), *spans)])

        msi, valid = self.msi_MHW, self.valid_HW
        if valid is not None:
            valid = np.asarray(valid[slice(*rows), slice(*columns)], dtype=bool)
        return replace(
            self,
            raw_SHW=cut(self.raw_SHW),
            msi_MHW=None if msi is None else cut(msi),
            valid_HW=None if valid is None or valid.all() else valid,
        )

    def without_gaps(self) -> "Scene":
        """Return the largest window in which every pixel has data."""
        if self.valid_HW is None:
            return self
        window = largest_window(self.valid_HW)
        note = f"Cropped to the pixels with data: {Region(self.name, *window)}."
        return replace(self.window(*window), notes=(*self.notes, note))

    def pixel_hash(self) -> str:
        """Return the SHA-256 of pixels and wavelengths, independent of the file format."""
        digest = hashlib.sha256(repr(self.raw_SHW.shape).encode())
        for band in self.raw_SHW:
            digest.update(scaled(band, self.full_scale).astype("<f4").tobytes())
        if self.wavelengths_nm is not None:
            digest.update(np.ascontiguousarray(self.wavelengths_nm, dtype="<f8").tobytes())
        if self.msi_MHW is not None:
            digest.update(repr(self.msi_MHW.shape).encode())
            digest.update(np.ascontiguousarray(self.msi_MHW, dtype="<f4").tobytes())
        if self.valid_HW is not None:
            digest.update(b"valid" + np.packbits(self.valid_HW).tobytes())
        return digest.hexdigest()


def scaled(raw: np.ndarray, full_scale: float) -> np.ndarray:
    """Return stored numbers as float32 fractions of the full scale."""
    return raw.astype(np.float32) / np.float32(full_scale)


def read_scene(path: Path, options: Options = DEFAULTS, name: str = "") -> Scene:
    """Read a scene of any kind, recognised by content; options state facts the file lacks.

    If a key is given, a .mat file is read as a plain variable, not as a Harvard scene or a pair.
    Raises `UserError`.
    """
    file = open_file(path)
    if file.kind == "pair" and options.key is None:
        scene = read_pair(file, options)
        return replace(scene, name=name or scene.name)
    array = file.array(options)
    if file.kind == "harvard" and options.key is None and array.wavelengths_nm is None:
        raise UserError(
            f"{path}: found {array}, expected a Harvard scene, ref [rows, columns, 31]; name a "
            "variable with key to read the file as any other .mat"
        )
    if file.kind in ("mat", "numpy"):
        # Band centres beside such an array stay out: they would change the scene's fingerprint.
        array = replace(array, wavelengths_nm=None)
    return scene_of(array, options, name)


def scene_of(array: Array, options: Options = DEFAULTS, name: str = "") -> Scene:
    """Read an array [S, H, W] as a scene; the user's facts override those of the file."""
    numbers = numbers_of(array, options)
    scene = make_scene(
        name or array.name or array.path.stem,
        numbers.raw_SHW,
        numbers.wavelengths_nm,
        str(array.path),
        full_scale=numbers.full_scale,
        notes=numbers.notes,
    )
    return replace(scene, valid_HW=numbers.valid_HW)


def read_pair(file: File, options: Options = DEFAULTS, msi_key: str = MSI) -> Scene:
    """Read a .mat file with the HSI [h, w, S] (key, default `HSim`) and the MSI [H, W, M].

    Both are in units of one full scale. Raises `UserError` if a variable is missing or the MSI grid
    is not a whole number of times finer than the HSI grid.
    """
    scenes = []
    for key in (options.key or HSI, msi_key):
        array = file.array(Options(key=key))
        scenes.append(scene_of(replace(array, wavelengths_nm=None), options))
        options = replace(options, wavelengths_nm=None)
    hsi, msi = scenes
    (h, w), (rows, cols) = hsi.raw_SHW.shape[1:], msi.raw_SHW.shape[1:]
    if rows % h or cols % w or rows // h != cols // w:
        raise UserError(
            f"{file.path}: found an MSI of {rows}x{cols} pixels for an HSI of {h}x{w}, expected "
            "the same whole number of MSI pixels per HSI pixel along both axes; the two do not "
            "belong together, or one was cropped: register and crop them first"
        )
    valid = hsi.valid_HW
    if msi.valid_HW is not None:
        # A pixel of the cube has data if all MSI pixels on its ground have.
        cells = msi.valid_HW.reshape(h, rows // h, w, cols // w)
        valid = in_all(valid, np.all(cells, axis=(1, 3)))
    return replace(hsi, msi_MHW=msi.cube(), valid_HW=valid, notes=hsi.notes + msi.notes)


def read_known(name: str, path: Path) -> Scene:
    """Read a published file with full scale and nominal wavelengths from the registry.

    Raises `UserError` for an unknown name, or a file that does not hold the published array.
    """
    if name not in KNOWN:
        raise UserError(f"{path}: found set {name!r}, expected one of {', '.join(KNOWN)}")
    published, file = KNOWN[name], open_file(path)
    rows, cols = published.shape_SHW[1:]
    options = Options(
        key=next((k for k in published.keys if k in file.arrays), published.keys[0]),
        bands_axis=-1,
        rows=rows,
        cols=cols,
        full_scale=published.full_scale,
    )
    # Read without wavelengths first, so that a wrong shape is reported as such.
    if published.msi_key:
        scene = read_pair(file, options, published.msi_key)
    else:
        scene = scene_of(replace(file.array(options), wavelengths_nm=None), options)
    if scene.raw_SHW.shape != published.shape_SHW:
        raise UserError(
            f"{path}: found {options.key} as [S, H, W] = {scene.raw_SHW.shape}, expected "
            f"{published.shape_SHW} for {name}; this is another file: read it by its format"
        )
    notes = (
        *scene.notes,
        *published.notes,
        "Wavelengths are nominal, not the sensor's calibration.",
    )
    return replace(scene, name=name, wavelengths_nm=published.wavelengths_nm(), notes=notes)


def make_scene(
    name: str,
    raw_SHW: np.ndarray,
    wavelengths_nm: Sequence[float] | np.ndarray | None,
    source: str,
    *,
    full_scale: float | None = None,
    notes: tuple[str, ...] = (),
) -> Scene:
    """Return a checked scene; every reader ends with this call.

    `full_scale` defaults to 255 for uint8 and to 1 for floats; other integers need it. `raw_SHW`
    may be any real type. Raises `UserError` that names `source` for a wrong shape or type, NaN,
    values outside [0, full_scale], or wavelengths that do not ascend with the bands.
    """
    if raw_SHW.ndim != 3 or 0 in raw_SHW.shape:
        raise UserError(
            f"{source}: found an array of shape {raw_SHW.shape}, expected [bands, rows, columns]"
        )
    raw = raw_SHW.astype(raw_SHW.dtype.newbyteorder("="), copy=False)
    full_scale = full_scale_of(raw, full_scale, source)
    if np.issubdtype(raw.dtype, np.floating):
        with np.errstate(over="ignore"):  # too large for float32 becomes inf, refused below
            raw = raw.astype(np.float32)
    elif raw.dtype not in (np.uint8, np.uint16):
        fits = raw.min() >= 0 and raw.max() <= 65535
        raw = raw.astype(np.uint16 if fits else np.float32)
    check_finite(raw, source)
    low, high = float(raw.min()), float(raw.max())
    if low < 0 or high > full_scale:
        raise UserError(
            f"{source}: found values from {low:g} to {high:g}, expected [0, {full_scale:g}]; "
            "say the sensor's full scale (not the image's maximum) with --full-scale, the number "
            "that means no data with --no-data, and clip other negative values"
        )
    nm = wavelengths_nm
    return Scene(
        name=name,
        raw_SHW=np.ascontiguousarray(raw),
        full_scale=full_scale,
        wavelengths_nm=None if nm is None else _checked_wavelengths(nm, len(raw), source),
        source=source,
        bit_depth=None if raw.dtype == np.float32 else int(np.ceil(np.log2(full_scale + 1))),
        notes=notes,
    )


def _checked_wavelengths(
    wavelengths_nm: Sequence[float] | np.ndarray, bands: int, source: str
) -> np.ndarray:
    """Return wavelengths as float64 [S].

    Raises `UserError` unless there is one per band, positive and ascending.
    """
    try:
        centres_S = np.asarray(wavelengths_nm, dtype=np.float64).ravel()
    except (TypeError, ValueError, OverflowError):
        raise UserError(
            f"{source}: found wavelengths that are no real numbers, expected band centres in nm; "
            "correct them"
        ) from None
    if centres_S.shape != (bands,):
        raise UserError(
            f"{source}: found {centres_S.size} wavelengths for {bands} bands, expected one a band; "
            "name those of the bands that are stored"
        )
    steps = np.diff(centres_S, prepend=0.0)
    if not (np.isfinite(centres_S).all() and (steps > 0).all()):
        bad = int((~np.isfinite(centres_S) | ~(steps > 0)).argmax())
        before = f"followed {centres_S[bad - 1]:g} nm" if bad else "came first"
        raise UserError(
            f"{source}: found wavelength {centres_S[bad]:g} nm, which {before}, expected ascending "
            "band centres above 0; the bands are shuffled or doubled: sort them by wavelength"
        )
    return centres_S
