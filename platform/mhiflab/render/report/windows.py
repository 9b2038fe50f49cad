"""Cubes for a report's viewer, from the windows that runs recorded."""

import base64
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import matplotlib as mpl
import numpy as np
from torch import Tensor

from feinfn.errors import UserError
from feinfn.protocols.simulate import Pair
from mhiflab.plan.plan import Finished, Plan
from mhiflab.record.artifacts import WINDOW_STEPS, Window
from mhiflab.render.figures.style import MAPS

VIEWER_BYTES = 4_500_000
"""Largest size of a page's cubes, unless they are as small as `LEAST_PX`."""

LEAST_PX = 32
"""Smallest side of a window; if it is still too large, cases are left out."""


@dataclass
class Windows:
    """A part of a test image: its reference, its upsampled inputs and every case's result."""

    first: Window | None = None
    """The first case's window."""
    shown: tuple = ()
    """Image, place, shape and reference, which all cases share."""
    reference: dict[str, np.ndarray] = field(default_factory=dict)
    upsampled: dict[str, np.ndarray] = field(default_factory=dict)
    fused: dict[str, np.ndarray] = field(default_factory=dict)
    """Cubes by label, uint16 [S, H, W] in steps of 1 / `WINDOW_STEPS`; without reference none."""
    notes: list[str] = field(default_factory=list)
    """Reasons for what is not shown."""


def read_windows(plan: Plan) -> Windows:
    """Return the windows of each case's first finished seed that show the same place."""
    windows = Windows()
    for _, entries in groupby(plan.finished, lambda entry: entry.trial.case):
        entry = next(entries)
        try:
            _add(windows, entry, entry.run.window())
        except UserError as error:
            windows.notes.append(str(error))
    return windows


def _steps(cube: np.ndarray | Tensor) -> np.ndarray:
    """Return the integers that a run recorded; exact in float32."""
    return np.rint(np.asarray(cube) * np.float32(WINDOW_STEPS)).astype(np.uint16)


def _add(windows: Windows, entry: Finished, window: Window) -> None:
    inputs, upsampled = window.inputs, _steps(window.inputs.lms_BSHW[0])
    reference = {"Reference": _steps(inputs.reference_BSHW[0])} if isinstance(inputs, Pair) else {}
    shown = (window.scene, window.place, upsampled.shape, *map(bytes, reference.values()))
    if windows.first is None:
        windows.first, windows.shown, windows.reference = window, shown, reference
    elif shown != windows.shown:
        windows.notes.append(f"{entry.who}: left out, its window shows another image.")
        return
    windows.fused[entry.who] = _steps(window.fused_SHW)
    if not any(np.array_equal(upsampled, x) for x in windows.upsampled.values()):
        name = f"{entry.trial.spec.protocol.upsampling.capitalize()} upsampling"
        name += f" ({entry.trial.label})" if name in windows.upsampled else ""
        windows.upsampled[name] = upsampled


def viewer_data(windows: Windows, first: Window) -> dict[str, Any]:
    """Return the data of the viewer's script; cubes are base64 of little-endian uint16 [S, H, W].

    If the cubes take more than `VIEWER_BYTES`, the window is cut around its middle, and then cases
    are left out; `windows.notes` say so.
    """
    bands, height, width = first.fused_SHW.shape
    cubes = [("reference", label, x) for label, x in windows.reference.items()]
    cubes += [("upsampled", label, x) for label, x in windows.upsampled.items()]
    fused = [("fused", label, x) for label, x in windows.fused.items()]
    # Four letters of base64 hold three bytes, and a pixel of a band takes two bytes.
    pixels = VIEWER_BYTES * 3 // 8 // bands
    side = max(LEAST_PX, int((pixels / (len(cubes) + len(fused))) ** 0.5))
    top, left = (max(0, (length - side) // 2) for length in (height, width))
    rows, columns = min(height, side), min(width, side)
    if (rows, columns) != (height, width):
        windows.notes.append(
            f"The window is cut from {height} x {width} to {rows} x {columns} pixels, so that this "
            "page does not grow too large."
        )
    count = max(1, pixels // (rows * columns) - len(cubes))
    if left_out := [label for _, label, _ in fused[count:]]:
        windows.notes.append(
            f"Left out, so that this page does not grow too large: {', '.join(left_out)}."
        )
    colours = mpl.colormaps[MAPS["error"]](np.arange(256), bytes=True)[:, :3]
    nm, cut = first.wavelengths_nm, np.s_[:, top : top + rows, left : left + columns]
    return {
        "height": rows,
        "width": columns,
        "bands": bands,
        "row": first.place[0] + top,
        "column": first.place[1] + left,
        "steps": WINDOW_STEPS,
        "wavelengths_nm": None if nm is None else nm.tolist(),
        "map": colours.ravel().tolist(),
        "cubes": [
            {"kind": kind, "label": label, "data": _text(x[cut])}
            for kind, label, x in [*cubes, *fused[:count]]
        ],
    }


def _text(cube_SHW: np.ndarray) -> str:
    return base64.b64encode(cube_SHW.astype("<u2").tobytes()).decode()
