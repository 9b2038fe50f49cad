"""Cubes for a report's viewer, from the windows that runs recorded."""

import base64
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from torch import Tensor

from feinfn.errors import UserError
from feinfn.protocols.simulate import Pair
from mhiflab.plan.plan import Entry, Finished, Plan
from mhiflab.record.artifacts import WINDOW_STEPS, Window
from mhiflab.render.figures.style import MAPS

VIEWER_BYTES = 4_500_000
"""Largest size of a page's cubes, unless they are as small as `LEAST_PX`."""

LEAST_PX = 32
"""Smallest side of a window; if it is still too large, cases are left out."""


@dataclass
class Windows:
    """A part of a test image: its reference, its upsampled inputs and every case's result."""

    image: str = ""
    place: tuple[int, int] = (0, 0)
    """First row and column within the image."""
    wavelengths_nm: list[float] | None = None
    reference_SHW: np.ndarray | None = None
    upsampled_SHW: dict[str, np.ndarray] = field(default_factory=dict)
    fused_SHW: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """Reasons for what is not shown."""

    @property
    def size(self) -> tuple[int, ...]:
        """Bands, height and width of every cube."""
        return next(iter(self.fused_SHW.values())).shape


def read_windows(plan: Plan) -> Windows:
    """Return the windows of each case's first finished seed that show the same place."""
    windows = Windows()
    first_entries: dict[str, Finished] = {}
    for entry in plan.finished:
        first_entries.setdefault(entry.trial.case, entry)
    for entry in first_entries.values():
        try:
            _add(windows, entry, entry.run.window())
        except UserError as error:
            windows.notes.append(str(error))
    return windows


def _steps(cube: np.ndarray | Tensor) -> np.ndarray:
    """Return the integers (steps of 1 / `WINDOW_STEPS`) that a run recorded; exact in float32."""
    return np.rint(np.asarray(cube) * np.float32(WINDOW_STEPS)).astype(np.uint16)


def _add(windows: Windows, entry: Entry, window: Window) -> None:
    inputs, wavelengths_nm = window.inputs, window.wavelengths_nm
    reference = _steps(inputs.reference_BSHW[0]) if isinstance(inputs, Pair) else None
    upsampled = _steps(inputs.lms_BSHW[0])
    if not windows.fused_SHW:
        windows.image, windows.place, windows.reference_SHW = window.scene, window.place, reference
        windows.wavelengths_nm = (
            None if wavelengths_nm is None else [float(x) for x in wavelengths_nm]
        )
    elif (windows.image, windows.place, windows.size) != (
        window.scene,
        window.place,
        upsampled.shape,
    ) or not _same(windows.reference_SHW, reference):
        windows.notes.append(f"{entry.who}: left out, its window shows another image.")
        return
    windows.fused_SHW[entry.who] = _steps(window.fused_SHW)
    if not any(_same(upsampled, x) for x in windows.upsampled_SHW.values()):
        name = f"{entry.trial.spec.protocol.upsampling.capitalize()} upsampling"
        name += f" ({entry.trial.label})" if name in windows.upsampled_SHW else ""
        windows.upsampled_SHW[name] = upsampled


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def viewer_data(windows: Windows) -> dict[str, Any]:
    """Return the data of the viewer's script; cubes are base64 of little-endian uint16 [S, H, W].

    If the cubes take more than `VIEWER_BYTES`, the window is cut around its middle, and then cases
    are left out; `windows.notes` say so.
    """
    bands, height, width = windows.size
    shared_cubes = (windows.reference_SHW is not None) + len(windows.upsampled_SHW)
    # Four letters of base64 hold three bytes, and a pixel of a band takes two bytes.
    pixels = VIEWER_BYTES * 3 // 8 // bands
    cube_count = shared_cubes + len(windows.fused_SHW)
    side = min(max(height, width), max(LEAST_PX, int((pixels / cube_count) ** 0.5)))
    rows, columns = _middle(height, side), _middle(width, side)
    if side < max(height, width):
        windows.notes.append(
            f"The window is cut from {height} x {width} to {rows.stop - rows.start} x "
            f"{columns.stop - columns.start} pixels, so that this page does not grow too large."
        )
    case_count = max(
        1, pixels // ((rows.stop - rows.start) * (columns.stop - columns.start)) - shared_cubes
    )
    if cases_left_out := list(windows.fused_SHW)[case_count:]:
        windows.notes.append(
            f"Left out, so that this page does not grow too large: {', '.join(cases_left_out)}."
        )
    cubes_shown = (
        [] if windows.reference_SHW is None else [("reference", "Reference", windows.reference_SHW)]
    )
    cubes_shown += [("upsampled", label, x) for label, x in windows.upsampled_SHW.items()]
    cubes_shown += [
        ("fused", label, x) for label, x in list(windows.fused_SHW.items())[:case_count]
    ]
    cut = slice(None), rows, columns
    colours = mpl.colormaps[MAPS["error"]](np.arange(256), bytes=True)[:, :3]
    return {
        "height": rows.stop - rows.start,
        "width": columns.stop - columns.start,
        "bands": bands,
        "row": windows.place[0] + rows.start,
        "column": windows.place[1] + columns.start,
        "steps": WINDOW_STEPS,
        "wavelengths_nm": windows.wavelengths_nm,
        "map": colours.ravel().tolist(),
        "cubes": [
            {"kind": k, "label": label, "data": _text(x[cut])} for k, label, x in cubes_shown
        ],
    }


def _middle(length: int, side: int) -> slice:
    first = max(0, (length - side) // 2)
    return slice(first, first + min(length, side))


def _text(cube_SHW: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(cube_SHW, "<u2").tobytes()).decode()
