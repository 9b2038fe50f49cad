"""Grids: heads and rows of cells, the one form of every table; `out.print(grid)` prints one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

STYLES = {
    **{"best": "bold", "second": "underline", "part": "bold", "other": "yellow"},
    **{"done": "green", "running": "blue", "resume": "yellow", "new": "cyan"},
    **{"failed": "red", "blocked": "magenta"},
}
"""Styles of marks on the console; other marks are for pages alone."""

LAYOUTS = ((" ", " ", 24), ("\n", " ", 12), ("\n", "\n", 12))
"""Layouts of a table on the console, tried in turn: what joins a cell's text with that below it and
the parts of the latter, and the characters that a line of a name keeps at least."""


@dataclass(frozen=True)
class Cell:
    """A cell of a grid."""

    text: str
    mark: str = ""
    """Emphasis: "best", "second", "key", a state of a trial, or another name in `STYLES`."""
    below: str = ""
    """Smaller text after the first, or below it."""
    value: float | None = None
    """Number that the text tells; pages sort by it, and consoles never break such a column."""

    def shown(self, between: str = " ", within: str = " ") -> Text:
        """Return both texts as a console shows them."""
        text = Text(self.text, STYLES.get(self.mark, ""))
        below = self.below.strip().replace(" (", f"{within}(")
        return text.append(between + below) if below else text


def texts(*values: str) -> list[Cell]:
    """Return cells of texts alone."""
    return [Cell(value) for value in values]


def _width(text: str) -> int:
    return max(map(cell_len, text.splitlines()), default=0)


@dataclass(frozen=True)
class Grid:
    """A table: a head and rows, some of which are titles of sections."""

    head: Sequence[str]
    rows: Sequence[Sequence[Cell] | str]
    """Cells of every row, or the title of the section that follows."""
    title: str = ""
    names: int = 1
    """Number of leading cells that name a row."""

    @property
    def lines(self) -> list[Sequence[Cell]]:
        """The rows that are no titles."""
        return [row for row in self.rows if not isinstance(row, str)]

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Yield the table for a console; if its numbers do not fit, a paragraph for every row.

        Texts are wrapped, numbers are never broken.
        """
        if self.title:
            yield Text(self.title, "italic")
        room = options.max_width - 2 * (len(self.head) - 1)
        for between, within, least in LAYOUTS:
            rows = [[cell.shown(between, within) for cell in line] for line in self.lines]
            if widths := self._widths(rows, room, least, broken_heads=between == "\n"):
                yield self._table(iter(rows), widths)
                return
        yield from self._paragraphs()

    @property
    def _numeric(self) -> list[bool]:
        """Flags of the columns that hold numbers."""
        places = range(len(self.head))
        return [any(line[place].value is not None for line in self.lines) for place in places]

    def _widths(
        self, rows: Sequence[Sequence[Text]], room: int, least: int, broken_heads: bool
    ) -> list[int]:
        """Return the width of every column; empty if numbers leave less than `least` to a text."""
        natural = []
        for place, (head, is_number) in enumerate(zip(self.head, self._numeric, strict=True)):
            cells = [row[place].plain for row in rows]
            cells += head.split() if is_number and broken_heads else [head]
            cells += [row for row in self.rows if isinstance(row, str) and place == 0]
            natural.append(max(map(_width, cells), default=0))
        columns = list(zip(natural, self._numeric, strict=True))
        text_widths = [width for width, is_number in columns if not is_number]
        left = room - sum(natural) + sum(text_widths)
        longest = max(text_widths, default=0)
        shares = (n for n in range(longest, 0, -1) if sum(min(w, n) for w in text_widths) <= left)
        share = next(shares, 0)
        if share < min(least, longest) or left < 0:
            return []
        return [width if is_number else min(width, share) for width, is_number in columns]

    def _table(self, rows: Iterator[Sequence[Text]], widths: Sequence[int]) -> Table:
        # A blank line tells rows of several lines apart.
        wrapped = any(
            "\n" in cell.text or _width(cell.text) > width
            for line in self.lines
            for cell, width in zip(line, widths, strict=True)
        )
        table = Table(
            box=SIMPLE_HEAD,
            show_edge=False,
            padding=(0, 1, 0, 0),
            pad_edge=False,
            show_lines=wrapped,
        )
        for head, width, is_number in zip(self.head, widths, self._numeric, strict=True):
            justify: Literal["right", "left"] = "right" if is_number else "left"
            table.add_column(Text(head), width=width, justify=justify, overflow="fold")
        for row in self.rows:
            if isinstance(row, str):
                table.add_section()
                table.add_row(Text(row, "italic"))
            else:
                table.add_row(*next(rows))
        return table

    def _paragraphs(self) -> Iterator[RenderableType]:
        for row in self.rows:
            if isinstance(row, str):
                yield Text(row, "italic")
                continue
            yield row[0].shown()
            for head, cell in zip(self.head[1:], row[1:], strict=True):
                if cell.text:
                    line = Text(f"{head.replace(chr(10), '')}: ").append_text(cell.shown())
                    yield Padding(line, (0, 0, 0, 2), expand=False)
