"""The cubes that a report's viewer shows, from the windows that runs recorded."""

import base64
from dataclasses import dataclass, field
from typing import Any

import matplotlib as mpl
import numpy as np
from torch import Tensor

from feinfn.errors import UserError
from feinfn.protocols.simulate import Pair
from mhiflab.plan.plan import Entry
from mhiflab.record.artifacts import WINDOW_STEPS
from mhiflab.render.figures.style import MAPS
from mhiflab.render.runs import RecordedStudy, Window

LEAST_PX = 32
"""Windows are not cut smaller than this; then cases are left out."""


@dataclass
class Windows:
    """One place of one test image: its reference, what was upsampled, and every case's result."""

    image: str = ""
    place: tuple[int, int] = (0, 0)
    """First row and column within the image."""
    wavelengths_nm: list[float] | None = None
    reference_SHW: np.ndarray | None = None
    upsampled_SHW: dict[str, np.ndarray] = field(default_factory=dict)
    fused_SHW: dict[str, np.ndarray] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What is not shown, and why."""

    @property
    def size(self) -> tuple[int, ...]:
        """Bands, height and width of every cube."""
        return next(iter(self.fused_SHW.values())).shape


def read_windows(recorded: RecordedStudy) -> Windows:
    """Return the windows of each case's first finished seed, where they show the same place."""
    found = Windows()
    first: dict[str, Entry] = {}
    for entry in recorded.plan.finished.entries:
        first.setdefault(entry.trial.case, entry)
    for entry in first.values():
        try:
            _add(found, entry, recorded.window(entry))
        except UserError as error:
            found.notes.append(str(error))
    return found


def _steps(cube: np.ndarray | Tensor) -> np.ndarray:
    """Return the integers of `WINDOW_STEPS` that a run recorded; float32 holds them exactly."""
    return np.rint(np.asarray(cube) * np.float32(WINDOW_STEPS)).astype(np.uint16)


def _add(found: Windows, entry: Entry, window: Window) -> None:
    inputs, nm = window.inputs, window.wavelengths_nm
    reference = _steps(inputs.reference_BSHW[0]) if isinstance(inputs, Pair) else None
    upsampled = _steps(inputs.lms_BSHW[0])
    if not found.fused_SHW:
        found.image, found.place, found.reference_SHW = window.scene, window.place, reference
        found.wavelengths_nm = None if nm is None else [float(x) for x in nm]
    elif (found.image, found.place, found.size) != (
        window.scene,
        window.place,
        upsampled.shape,
    ) or not _same(found.reference_SHW, reference):
        found.notes.append(f"{entry.who}: left out, its window shows another image.")
        return
    found.fused_SHW[entry.who] = _steps(window.fused_SHW)
    if not any(_same(upsampled, x) for x in found.upsampled_SHW.values()):
        name = f"{entry.trial.spec.protocol.upsampling.capitalize()} upsampling"
        name += f" ({entry.trial.label})" if name in found.upsampled_SHW else ""
        found.upsampled_SHW[name] = upsampled


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def viewer_data(found: Windows, room_bytes: int) -> dict[str, Any]:
    """Return what the viewer's script reads; cubes are base64 of little-endian uint16 [S, H, W].

    Where they take more than the room, the place is cut down around its middle and then cases are
    left out; `found.notes` say so.
    """
    bands, height, width = found.size
    always = (found.reference_SHW is not None) + len(found.upsampled_SHW)
    # Four letters of base64 hold three bytes; a pixel of a band takes two.
    pixels = max(0, room_bytes) * 3 // 8 // bands
    cubes = always + len(found.fused_SHW)
    side = min(max(height, width), max(LEAST_PX, int((pixels / cubes) ** 0.5)))
    rows, columns = _middle(height, side), _middle(width, side)
    if side < max(height, width):
        found.notes.append(
            f"The window is cut from {height} x {width} to {rows.stop - rows.start} x "
            f"{columns.stop - columns.start} pixels, so that this page does not grow too large."
        )
    shown = max(1, pixels // ((rows.stop - rows.start) * (columns.stop - columns.start)) - always)
    if left := list(found.fused_SHW)[shown:]:
        found.notes.append(
            f"Left out, so that this page does not grow too large: {', '.join(left)}."
        )
    every = [] if found.reference_SHW is None else [("reference", "Reference", found.reference_SHW)]
    every += [("upsampled", label, x) for label, x in found.upsampled_SHW.items()]
    every += [("fused", label, x) for label, x in list(found.fused_SHW.items())[:shown]]
    cut = slice(None), rows, columns
    map_ = mpl.colormaps[MAPS["error"]](np.arange(256), bytes=True)[:, :3]
    return {
        "height": rows.stop - rows.start,
        "width": columns.stop - columns.start,
        "bands": bands,
        "row": found.place[0] + rows.start,
        "column": found.place[1] + columns.start,
        "steps": WINDOW_STEPS,
        "wavelengths_nm": found.wavelengths_nm,
        "map": map_.ravel().tolist(),
        "cubes": [{"kind": k, "label": label, "data": _text(x[cut])} for k, label, x in every],
    }


def _middle(length: int, side: int) -> slice:
    first = max(0, (length - side) // 2)
    return slice(first, first + min(length, side))


def _text(cube_SHW: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(cube_SHW, "<u2").tobytes()).decode()
