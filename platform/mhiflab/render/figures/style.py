"""The look that all figures share, and how they are written."""

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
"""Width of a column and of the text of a two-column paper."""

LINE_IN = 0.13
"""Height of a line of text."""

PAGE_IN, LEAST_IN = 9.0, 0.6
"""Height of a page's text, and width of a picture below which its notes meet the next one's."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, told apart with all kinds of colour vision; yellow is too light for lines."""

LINES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (7, 2)), (0, (1, 2)))

MAPS = {"error": "cividis", "amplitude": "viridis", "phase": "twilight"}

HIDDEN_SHARE = 0.5
"""Percent of the largest errors that lie above the end of an error scale."""

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
    # Names are shown as they are: a dollar is a dollar.
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
    """Draw under the project's style, whatever the user's own settings are."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with style.context(["default", _RC]):
            return draw(*args, **kwargs)

    return drawn


def new_figure(width_in: float, height_in: float) -> Figure:
    """Return an empty figure that keeps its parts from overlapping."""
    return Figure(figsize=(width_in, height_in), layout="constrained")


@styled
def mark(figure: Figure, text: str) -> Figure:
    """Write a line below everything else in a figure, which grows by it, and return it."""
    width_in, height_in = figure.get_size_inches()
    figure.set_size_inches(width_in, height_in + LINE_IN)
    before = figure.get_supxlabel()
    figure.supxlabel(f"{before}\n{text}" if before else text, fontsize=6)
    return figure


def rendered(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a png (300 dpi) or pdf; raise `UserError` for other kinds."""
    if kind not in _METADATA:
        raise UserError(f"figure: found format {kind!r}, expected {' or '.join(_METADATA)}")
    drawn = BytesIO()
    with style.context(["default", _RC]):
        figure.savefig(drawn, format=kind, metadata=_METADATA[kind])
    return drawn.getvalue()


def png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG (300 dpi)."""
    return rendered(figure, "png")


def look(place: int) -> dict[str, Any]:
    """Return colour and dashes of the line at a place; the first seven are told apart in grey too.

    From the eighth on colours come again, with other dashes. Raises `UserError` beyond the 49th,
    which would look like another.
    """
    again, colour = divmod(place, len(COLOURS))
    if again >= len(LINES):
        most = len(COLOURS) * len(LINES)
        raise UserError(
            f"figure: found more than {most} lines, expected at most {most}, which can be told "
            "apart; choose fewer cases: --option cases=[...]"
        )
    return {"color": COLOURS[colour], "linestyle": LINES[(colour + again) % len(LINES)]}


def wrapped(label: str, width: int) -> str:
    """Return a label on several lines of at most `width` letters where words allow."""
    return "\n".join(textwrap.wrap(label, width, break_long_words=False)) or label


def most_lines(texts: Iterable[str]) -> int:
    """Return how many lines the longest of some texts has."""
    return max((text.count("\n") + 1 for text in texts), default=0)


@dataclass(frozen=True)
class Page:
    """Titled pictures in rows on a page."""

    titles: list[str]
    columns: int
    rows: int
    each_in: float
    """Width of a picture."""
    height_in: float
    """Of all rows."""


def fit_page(
    labels: Collection[str],
    notes: Iterable[str],
    least: int,
    width_in: Callable[[int], float],
    ratio: float,
    gap_in: float,
) -> Page:
    """Return the layout of the fewest columns, from `least` on, that is no higher than a page.

    `notes` stand below the pictures, `width_in` tells a picture's width by the columns, `ratio` its
    height in its widths, `gap_in` what is left free below every row. Raises `UserError` where
    pictures would be too small then.
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
    """Write a legend above all axes in as many columns as fit; the figure grows by its lines.

    Labels are given, as artists keep none that begins with an underscore.
    """
    width_in = figure.get_figwidth()
    # The sample and the space around it take 0.45 in, a letter about 0.052.
    shown = [wrapped(label, int((width_in - 0.5) / 0.052)) for label in labels]
    longest = max(len(line) for label in shown for line in label.splitlines())
    fitting = max(1, min(len(shown), int(width_in / (0.45 + 0.052 * longest))))
    lines = -(-len(shown) // fitting)
    wrapping = sum(label.count("\n") for label in shown)
    figure.set_figheight(figure.get_figheight() + LINE_IN * (lines + wrapping))
    # No more columns than fill the lines.
    columns = -(-len(shown) // lines)
    return figure.legend(
        handles, shown, loc="outside upper center", ncols=columns, handlelength=2.6
    )


def picture(axis: Axes, image: np.ndarray, **more: Any) -> AxesImage:
    """Show an image pixel by pixel, without ticks."""
    axis.set_xticks([])
    axis.set_yticks([])
    for spine in axis.spines.values():
        spine.set_visible(True)
    # Half precision cannot be drawn; "none" leaves the pixels to the reader of a PDF.
    shown = image.astype(np.float32) if image.dtype == np.float16 else image
    return axis.imshow(shown, interpolation="none", **more)


def error_limit(maps: Iterable[np.ndarray]) -> float:
    """Return where a common error scale ends: few pixels lie above; 1 where nothing is seen."""
    every = np.concatenate([np.zeros(0), *(np.asarray(m, np.float64).ravel() for m in maps)])
    seen = every[np.isfinite(every)]
    limit = float(np.percentile(seen, 100 - HIDDEN_SHARE)) if seen.size else 0.0
    return limit or 1.0
