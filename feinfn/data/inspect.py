"""What a scene holds and what looks wrong with it, and a small picture of it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feinfn.data.picture import colours, rgb_bands
from feinfn.data.scene import Scene


@dataclass(frozen=True)
class Facts:
    """A scene in a line; values are as stored."""

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
    def used(self) -> float:
        """The highest value as a fraction of the full scale."""
        return self.high / self.full_scale


def facts(scene: Scene) -> Facts:
    """Return the facts of a scene and what looks wrong with it."""
    raw, nm = scene.raw_SHW, scene.wavelengths_nm
    problems = list(scene.notes)
    if nm is None:
        problems.append("no wavelengths: response tables by wavelength cannot be used")
    flat = [band + 1 for band, x in enumerate(raw) if x.min() == x.max()]
    if flat:
        problems.append(f"bands without content: {', '.join(map(str, flat))}")
    full = float((raw >= scene.full_scale).mean())
    if full > 0.001:
        problems.append(f"{full:.1%} of the values are at the full scale: saturated")
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

    99 % of the values are below white.
    """
    chosen = rgb_bands(len(scene.raw_SHW), scene.wavelengths_nm)
    step = -(-max(scene.raw_SHW.shape[1:]) // side_px)
    small = scene.raw_SHW[chosen, ::step, ::step].astype(np.float32)
    white = max(float(np.quantile(small, 0.99)), 1e-9)
    return colours(small, white)


def contact_sheet(pictures: list[np.ndarray], path: Path) -> None:
    """Save pictures as one PNG, five a row."""
    from PIL import Image

    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    columns = min(5, len(pictures))
    rows = -(-len(pictures) // columns)
    sheet = np.zeros((rows * height, columns * width, 3), np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    Image.fromarray(sheet).save(path, "PNG")
