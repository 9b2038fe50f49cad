"""Scenes: one hyperspectral cube in [0, 1] each, the result of every reader.

Legend: S bands, M MSI bands, H rows, W columns.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from feinfn.errors import UserError


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
    notes: tuple[str, ...] = ()
    """Remarks of the reader about peculiarities and corrections, one sentence each."""

    def cube(self) -> np.ndarray:
        """Return the cube as float32 [S, H, W] in [0, 1]."""
        return scaled(self.raw_SHW, self.full_scale)

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
        return digest.hexdigest()


def scaled(raw: np.ndarray, full_scale: float) -> np.ndarray:
    """Return stored numbers as float32 fractions of the full scale."""
    return raw.astype(np.float32) / np.float32(full_scale)


def make_scene(
    name: str,
    raw_SHW: np.ndarray,
    wavelengths_nm: Sequence[float] | np.ndarray | None,
    source: str,
    *,
    full_scale: float | None = None,
    msi_MHW: np.ndarray | None = None,
    notes: tuple[str, ...] = (),
) -> Scene:
    """Return a checked scene; every reader ends with this call.

    `full_scale` defaults to the type's maximum for uint8 and uint16 and to 1 for floats; other
    integers need it. `raw_SHW` may be any real type; `msi_MHW` is in units of the same full scale.
    Raises `UserError` that names `source` for a wrong shape or type, NaN, values outside [0,
    full_scale], or wavelengths that do not ascend with the bands.
    """
    if raw_SHW.ndim != 3 or 0 in raw_SHW.shape:
        raise UserError(
            f"{source}: found an array of shape {raw_SHW.shape}, expected [bands, rows, columns]"
        )
    raw_SHW = raw_SHW.astype(raw_SHW.dtype.newbyteorder("="), copy=False)
    kind = raw_SHW.dtype
    if kind in (np.uint8, np.uint16):
        raw = raw_SHW
        full_scale = float(np.iinfo(kind).max) if full_scale is None else full_scale
    elif np.issubdtype(kind, np.integer):
        if full_scale is None:
            raise UserError(
                f"{source}: found numbers of type {kind}, whose full scale is not known, expected "
                "uint8, uint16 or floats in [0, 1]; say which number means 1 with full_scale"
            )
        fits = raw_SHW.min() >= 0 and raw_SHW.max() <= 65535
        raw = raw_SHW.astype(np.uint16) if fits else raw_SHW.astype(np.float32)
    elif np.issubdtype(kind, np.floating):
        with np.errstate(
            over="ignore"
        ):  # too large for float32 becomes inf, which is refused below
            raw = raw_SHW.astype(np.float32)
        full_scale = 1.0 if full_scale is None else full_scale
    else:
        raise UserError(f"{source}: found numbers of type {kind}, expected real numbers")
    for what, values in (("", raw), (" of the MSI", msi_MHW)):
        if values is not None:
            _check_range(values, full_scale, f"{source}{what}")
    if wavelengths_nm is not None:
        wavelengths_nm = _checked_wavelengths(wavelengths_nm, raw.shape[0], source)
    depth = None if raw.dtype == np.float32 else int(np.ceil(np.log2(full_scale + 1)))
    msi = None if msi_MHW is None else scaled(msi_MHW, full_scale)
    return Scene(
        name=name,
        raw_SHW=np.ascontiguousarray(raw),
        full_scale=float(full_scale),
        wavelengths_nm=wavelengths_nm,
        source=source,
        bit_depth=depth,
        msi_MHW=None if msi is None else np.ascontiguousarray(msi),
        notes=notes,
    )


def check_finite(values_SHW: np.ndarray, source: str) -> None:
    """Raise `UserError` with the number of NaN and inf values and the place of the first one."""
    bad = ~np.isfinite(values_SHW)
    if bad.any():
        band, row, column = np.unravel_index(bad.argmax(), bad.shape)
        raise UserError(
            f"{source}: found {bad.sum()} NaN or inf values of {bad.size}, the first in band "
            f"{band}, row {row}, column {column} (counted from 0), expected numbers; fill them, or "
            "cut them off"
        )


def _check_range(values: np.ndarray, full_scale: float, source: str) -> None:
    """Raise `UserError` unless all values are finite and in [0, full_scale]."""
    if full_scale <= 0 or not np.isfinite(full_scale):
        raise UserError(f"{source}: found full_scale {full_scale:g}, expected a number > 0")
    check_finite(values, source)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > full_scale:
        raise UserError(
            f"{source}: found values from {low:g} to {high:g}, expected [0, {full_scale:g}]; name "
            "the sensor's full scale with full_scale (not the image's maximum), and clip or shift "
            "negative values"
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
