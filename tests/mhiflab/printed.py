"""Grids as a console of some width prints them."""

from rich.cells import cell_len
from rich.console import Console

from mhiflab.grid import Grid

WIDTHS = (40, 60, 80)
LONG = "q" * 120
"""A name of one word that is wider than every console."""


def printed(grid: Grid, width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(grid)
    return capture.get().splitlines()


def check_printed(grid: Grid) -> None:
    """Assert that consoles of every width show all numbers whole and all letters of long names."""
    cells = [cell for line in grid.lines for cell in line]
    for width in WIDTHS:
        lines = printed(grid, width)
        assert max(map(cell_len, lines)) <= width
        text = "\n".join(lines)
        assert "…" not in text
        texts = [*grid.head, grid.title, *(cell.text for cell in cells)]
        assert text.count("q") >= sum(one.count("q") for one in texts)
        numbers = [f"{cell.text} {cell.below}".split() for cell in cells if cell.value is not None]
        assert {word for words in numbers for word in words} <= set(text.split())
