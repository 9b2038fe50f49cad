"""Draw the pictures of the README from the embedded sample and from a lab's demo.

    python docs/pictures.py             the idea: LR-HSI + MSI -> HR-HSI
    python docs/pictures.py --lab lab   also the demo's figure, which `mhiflab demo` has drawn there

Legend: S bands, H W rows and columns, K colour channels.
"""

import argparse
import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Polygon
from matplotlib.transforms import Affine2D
from PIL import Image

from feinfn.config import DataConfig
from feinfn.data.source import load_scene, resolve_data
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import simulate

IMAGES = Path(__file__).parent / "images"
SCENE, PROTOCOL = "pompoms_ms", "cave_x4"
RGB_NM = (610, 540, 460)
"""Band centres that become red, green and blue."""

MSI_NM = np.array([455.0, 540.0, 625.0])
"""The colours of B, G and R, as `cave_x4` orders them."""

LONG_NAMES = {
    "LR-HSI": "low-resolution hyperspectral",
    "MSI": "high-resolution multispectral",
    "HR-HSI": "high-resolution hyperspectral",
}

FACE, DEPTH, THIN, GAP = 100.0, 34.0, 9.0, 46.0
"""Side of a cube's face, how far 31 and 3 bands reach to the upper right, space for a sign."""

INK, DPI, WIDTH_PX, COLOURS = "#24292f", 150, 1200, 256


def wavelength_colours(nm_S: np.ndarray) -> np.ndarray:
    """Return the colour of light of some wavelengths, [S, 3]: sums of three Gaussians."""
    centres, widths = np.array([625.0, 540.0, 455.0]), np.array([52.0, 42.0, 34.0])
    rgb_SK = np.exp(-(((nm_S[:, None] - centres) / widths) ** 2) / 2)
    # Violet has some red in it.
    rgb_SK[:, 0] += 0.45 * np.exp(-(((nm_S - 410) / 30) ** 2) / 2)
    return 0.25 + 0.75 * rgb_SK / rgb_SK.max(axis=1, keepdims=True)


def false_colour(cube_SHW: np.ndarray, nm_S: np.ndarray, white: float) -> np.ndarray:
    """Return the bands nearest to red, green and blue as an image [H, W, 3]."""
    nearest = [int(np.abs(nm_S - one).argmin()) for one in RGB_NM]
    return brighter(cube_SHW[nearest].transpose(1, 2, 0) / white)


def brighter(values: np.ndarray) -> np.ndarray:
    """Return linear light as a screen shows it."""
    return np.clip(values, 0, 1) ** (1 / 2.2)


def cube(
    axes: Axes, left: float, front_HWK: np.ndarray, sides_SHW: np.ndarray, nm_S: np.ndarray
) -> float:
    """Draw images as a cube whose depth counts bands; return where it ends.

    The upper and the right face show every band's edge in the band's own colour.
    """
    colours_SK, depth = wavelength_colours(nm_S), DEPTH if len(nm_S) > 3 else THIN
    top_SWK, right_SHK = (
        brighter(0.06 + 0.94 * edge[..., None]) * colours_SK[:, None]
        for edge in (sides_SHW[:, 0], sides_SHW[:, :, -1])
    )
    right, far = left + FACE, left + FACE + depth
    # Faces are drawn as unit squares and moved to their places.
    for face, matrix in (
        (front_HWK, [[FACE, 0, left], [0, FACE, 0], [0, 0, 1]]),
        (top_SWK[::-1], [[FACE, depth, left], [0, depth, FACE], [0, 0, 1]]),
        (right_SHK.transpose(1, 0, 2), [[depth, 0, right], [depth, FACE, 0], [0, 0, 1]]),
    ):
        axes.imshow(
            face,
            extent=(0, 1, 0, 1),
            interpolation="nearest",
            transform=Affine2D(np.array(matrix, dtype=float)) + axes.transData,
        )
    outlines = (
        [(left, 0), (right, 0), (right, FACE), (left, FACE)],
        [(left, FACE), (right, FACE), (far, FACE + depth), (left + depth, FACE + depth)],
        [(right, 0), (far, depth), (far, FACE + depth), (right, FACE)],
    )
    for corners in outlines:
        axes.add_patch(Polygon(corners, fill=False, edgecolor=INK, linewidth=1, joinstyle="round"))
    return far


def caption(axes: Axes, middle: float, title: str, lines: str) -> None:
    """Write what a cube is below it."""
    style = {"ha": "center", "va": "top", "color": INK}
    axes.text(middle, -8, title, fontsize=16, weight="bold", **style)
    axes.text(middle, -21, lines, fontsize=11.5, linespacing=1.45, **style)


def idea() -> Figure:
    """Draw LR-HSI and MSI of a sample scene, and the HR-HSI that fusion aims at."""
    protocol = PROTOCOLS[PROTOCOL]
    scene = load_scene(resolve_data(DataConfig()), SCENE)
    assert scene.wavelengths_nm is not None, "the sample's scenes have wavelengths"
    nm_S = np.asarray(scene.wavelengths_nm)
    hr_SHW = scene.cube().astype(np.float32)
    pair = simulate(torch.from_numpy(hr_SHW)[None], nm_S, protocol)
    lr_SHW, msi_MHW = pair.lr_hsi_BShw[0].numpy(), pair.msi_BMHW[0].numpy()
    white = float(np.percentile(hr_SHW, 99.3))
    msi_HWK = msi_MHW[[protocol.msi_order.index(band) for band in "RGB"]].transpose(1, 2, 0)

    figure = Figure(figsize=(12, 4.6), dpi=DPI, facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    x = 0.0
    parts = (
        ("LR-HSI", lr_SHW, false_colour(lr_SHW, nm_S, white), lr_SHW / white, nm_S),
        (
            "MSI",
            msi_MHW,
            brighter(msi_HWK / np.percentile(msi_HWK, 99.3)),
            msi_MHW / np.percentile(msi_MHW, 99.3),
            MSI_NM,
        ),
        ("HR-HSI", hr_SHW, false_colour(hr_SHW, nm_S, white), hr_SHW / white, nm_S),
    )
    for sign, (title, image, front, sides, nm) in zip(("", "+", "→"), parts, strict=True):
        if sign:
            axes.text(x + GAP / 2, FACE / 2, sign, ha="center", va="center", fontsize=40, color=INK)
            if sign == "→":
                axes.text(x + GAP / 2, FACE / 2 + 22, "fuse", ha="center", fontsize=13, color=INK)
            x += GAP
        bands, rows, columns = image.shape
        far = cube(axes, x, front, sides, nm)
        size = f"{bands} bands, {rows} × {columns} pixels"
        caption(axes, x + FACE / 2, title, f"{LONG_NAMES[title]}\n{size}")
        x = far
    axes.set(xlim=(-10, x + 10), ylim=(-46, FACE + DEPTH + 4), aspect="equal")
    axes.set_axis_off()
    return figure


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture with a palette, which takes a third of the space."""
    few = picture.convert("RGB").quantize(
        COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=5, dither=Image.Dither.NONE
    )
    few.save(path, optimize=True)


def main() -> None:
    """Draw the idea, and take the demo's figure from a lab if one is named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lab", type=Path, help="folder of a lab where the demo was run")
    lab = parser.parse_args().lab
    drawn = io.BytesIO()
    idea().savefig(drawn, format="png", metadata={"Software": None})
    save(Image.open(drawn), IMAGES / "idea.png")
    if lab is not None:
        figure = Image.open(lab / "rendered" / "demo" / "fused.png").convert("RGB")
        height = round(figure.height * WIDTH_PX / figure.width)
        save(figure.resize((WIDTH_PX, height), Image.Resampling.LANCZOS), IMAGES / "demo.png")


if __name__ == "__main__":
    main()
