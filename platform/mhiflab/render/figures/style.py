"""The style that all figures share, and their bytes in a file."""

import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

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
"""Height in inches of a page's text, and least width of a panel whose notes stay apart."""

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

styled = style.context(["default", _RC])
"""Decorator of functions that draw in the project's style, whatever the user's settings are."""


def new_figure(height_in: float, width_in: float = TEXT_IN) -> Figure:
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


@styled
def figure_bytes(figure: Figure, suffix: str = "png") -> bytes:
    """Return a figure as a file's bytes; raise `UserError` if it is neither png nor pdf."""
    if suffix not in _METADATA:
        raise UserError(f"figure: found format {suffix!r}, expected {' or '.join(_METADATA)}")
    buffer = BytesIO()
    figure.savefig(buffer, format=suffix, metadata=_METADATA[suffix])
    return buffer.getvalue()


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


@dataclass(frozen=True)
class Panel:
    """A method's image to draw."""

    title: str
    image: np.ndarray
    """uint8 [H, W, 3], or a map [H, W]."""
    error: np.ndarray | None = None
    """Map of its errors [H, W]; None without a reference."""
    note: str = ""
    """Text below the image."""


@dataclass(frozen=True)
class Page:
    """Layout of titled panels in rows on a page."""

    titles: list[str]
    columns: int
    rows: int
    each_in: float
    """Width of a panel in inches."""
    height_in: float
    """Height of all rows in inches."""


def fit_page(
    panels: Sequence[Panel],
    least: int,
    width_in: Callable[[int], float],
    ratio: float,
    gap_in: float,
) -> Page:
    """Return the layout with the fewest columns, at least `least`, that fits the height of a page.

    `width_in` gives a panel's width for a number of columns, `ratio` its height as a multiple of
    its width, and `gap_in` the free space below every row. Raises `UserError` if panels would be
    too small.
    """
    count = len(panels)
    for columns in range(least, int(TEXT_IN / LEAST_IN)):
        each, rows = width_in(columns), -(-count // columns)
        titles = [title_over(panel.title, each) for panel in panels]
        texts = (titles, [panel.note for panel in panels])
        lines = sum(1 + max(text.count("\n") for text in group) for group in texts)
        height = rows * (each * ratio + LINE_IN * lines + gap_in)
        if height <= PAGE_IN:
            return Page(titles, min(columns, count), rows, each, height)
    raise UserError(
        f"figure: found {count} pictures, expected fewer, as they do not fit a page of "
        f"{PAGE_IN:g} in; choose cases: --option cases=[...]"
    )


def title_over(label: str, width_in: float) -> str:
    """Return a label in lines that fit above a panel."""
    return wrapped(label, max(8, int(width_in * 14)))


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


def show_image(
    axis: Axes, image: np.ndarray, title: str = "", note: str = "", **more: Any
) -> AxesImage:
    """Show an image pixel by pixel in a frame without ticks, with a title and a note below."""
    axis.set(xticks=[], yticks=[], title=title, xlabel=note)
    axis.spines[:].set_visible(True)
    # Matplotlib cannot draw half precision. "none" keeps the pixels of the image in a PDF.
    shown = image.astype(np.float32) if image.dtype == np.float16 else image
    return axis.imshow(shown, interpolation="none", **more)


def error_limit(maps: Iterable[np.ndarray]) -> float:
    """Return the end of a common error scale, which few pixels exceed; 1 if no error is finite."""
    errors = [np.zeros(0), *(np.asarray(one, np.float64).ravel() for one in maps)]
    finite = (values := np.concatenate(errors))[np.isfinite(values)]
    limit = float(np.percentile(finite, 100 - HIDDEN_SHARE)) if finite.size else 0.0
    return limit or 1.0
