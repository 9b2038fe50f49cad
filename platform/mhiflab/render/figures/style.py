"""The style that all figures share, and their bytes in a file."""

import textwrap
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import wraps
from io import BytesIO
from typing import Any, ParamSpec

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.legend import Legend

from feinfn.errors import UserError

COLUMN_IN, TEXT_IN = 3.3, 6.9
"""Widths in inches of a column and of the text of a two-column paper."""

LINE_IN = 0.13
"""Height in inches of a line of text."""

PAGE_IN, LEAST_IN = 9.0, 0.6
"""Height in inches of a page's text, and least width of a picture whose notes stay apart."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Colours of Okabe and Ito (2008), distinct for all kinds of colour vision; yellow is too light."""

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (1, 2)))
"""Dashes of lines."""

MAPS = {"error": "cividis", "amplitude": "viridis", "phase": "twilight"}
"""Colour maps by quantity."""

HIDDEN_SHARE = 0.5
"""Percent of the errors that lie above the end of an error scale."""

_RC = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "legend.fontsize": 6.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.dpi": 300,
    "savefig.dpi": 300,
    # A dollar in a name is a dollar, not mathematics.
    "text.parse_math": False,
    # Text stays text in PDF files.
    "pdf.fonttype": 42,
    "svg.hashsalt": "mhiflab",
}

_METADATA: dict[str, dict[str, None]] = {
    # Neither the date nor the library's version: both would change the bytes.
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

P = ParamSpec("P")


def styled(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """Return a function that draws in the project's style, whatever the user's settings are."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style.context(["default", _RC]):
            return draw(*args, **kwargs)

    return drawn


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure whose layout keeps its parts apart."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


@styled
def add_footer(figure: Figure, text: str) -> Figure:
    """Write a line at the bottom of a figure, make it higher by that, and return it."""
    width_in, height_in = figure.get_size_inches()
    figure.set_size_inches(width_in, height_in + LINE_IN)
    existing = figure.get_supxlabel()
    figure.supxlabel(f"{existing}\n{text}" if existing else text, fontsize=6)
    return figure


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """Return a figure as bytes of png (300 dpi) or pdf; raise `UserError` for other formats."""
    if kind not in _METADATA:
        raise UserError(f"figure: found format {kind!r}, expected {' or '.join(_METADATA)}")
    buffer = BytesIO()
    with style.context(["default", _RC]):
        figure.savefig(buffer, format=kind, metadata=_METADATA[kind])
    return buffer.getvalue()


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG (300 dpi)."""
    return figure_bytes(figure, "png")


def line_style(place: int) -> dict[str, Any]:
    """Return colour and dashes of the line at a place; the first seven are distinct in grey too.

    From the eighth line on, colours repeat with other dashes. Raises `UserError` beyond the 49th
    line, which would look like an earlier one.
    """
    repeat, colour = divmod(place, len(COLOURS))
    if repeat >= len(LINES):
        most = len(COLOURS) * len(LINES)
        raise UserError(
            f"figure: found more than {most} lines, expected at most {most}, which can be told "
            "apart; choose fewer cases: --option cases=[...]"
        )
    return {"color": COLOURS[colour], "linestyle": LINES[(colour + repeat) % len(LINES)]}


def wrapped(label: str, width: int) -> str:
    """Return a label in lines of at most `width` letters; longer words stay whole."""
    return "\n".join(textwrap.wrap(label, width, break_long_words=False)) or label


def most_lines(texts: Iterable[str]) -> int:
    """Return the largest number of lines of some texts."""
    return max((text.count("\n") + 1 for text in texts), default=0)


@dataclass(frozen=True)
class Page:
    """Layout of titled pictures in rows on a page."""

    titles: list[str]
    columns: int
    rows: int
    each_in: float
    """Width of a picture in inches."""
    height_in: float
    """Height of all rows in inches."""


def fit_page(
    labels: Collection[str],
    notes: Iterable[str],
    least: int,
    width_in: Callable[[int], float],
    ratio: float,
    gap_in: float,
) -> Page:
    """Return the layout with the fewest columns, at least `least`, that fits the height of a page.

    `notes` stand below the pictures. `width_in` gives a picture's width for a number of columns,
    `ratio` its height as a multiple of its width, and `gap_in` the free space below every row.
    Raises `UserError` if pictures would be too small.
    """
    below = most_lines(notes)
    for columns in range(least, int(TEXT_IN / LEAST_IN)):
        each, rows = width_in(columns), -(-len(labels) // columns)
        titles = [wrapped(label, max(8, int(each * 14))) for label in labels]
        height = rows * (each * ratio + LINE_IN * (most_lines(titles) + below) + gap_in)
        if height <= PAGE_IN:
            return Page(titles, min(columns, len(labels)), rows, each, height)
    raise UserError(
        f"figure: found {len(labels)} pictures, expected fewer, as they do not fit a page of "
        f"{PAGE_IN:g} in; choose cases: --option cases=[...]"
    )


def legend_above(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> Legend:
    """Write a legend above all axes in as many columns as fit; make the figure higher by it.

    Labels are passed apart from artists, which drop labels that begin with an underscore.
    """
    width_in = figure.get_figwidth()
    # A line's sample and the space around it take 0.45 in, a letter about 0.052 in.
    wrapped_labels = [wrapped(label, int((width_in - 0.5) / 0.052)) for label in labels]
    longest = max(len(line) for label in wrapped_labels for line in label.splitlines())
    fitting = max(1, min(len(wrapped_labels), int(width_in / (0.45 + 0.052 * longest))))
    lines = -(-len(wrapped_labels) // fitting)
    wrapping = sum(label.count("\n") for label in wrapped_labels)
    figure.set_figheight(figure.get_figheight() + LINE_IN * (lines + wrapping))
    # Use no more columns than the number of lines needs.
    columns = -(-len(wrapped_labels) // lines)
    return figure.legend(
        handles, wrapped_labels, loc="outside upper center", ncols=columns, handlelength=2.6
    )


def show_image(axis: Axes, image: np.ndarray, **more: Any) -> AxesImage:
    """Show an image pixel by pixel in a frame without ticks."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(True)
    # Matplotlib cannot draw half precision. "none" keeps the pixels of the image in a PDF.
    shown = image.astype(np.float32) if image.dtype == np.float16 else image
    return axis.imshow(shown, interpolation="none", **more)


def error_limit(maps: Iterable[np.ndarray]) -> float:
    """Return the end of a common error scale, which few pixels exceed; 1 if no error is finite."""
    errors = np.concatenate([np.zeros(0), *(np.asarray(m, np.float64).ravel() for m in maps)])
    finite = errors[np.isfinite(errors)]
    limit = float(np.percentile(finite, 100 - HIDDEN_SHARE)) if finite.size else 0.0
    return limit or 1.0
