"""A comparison as sections of sentences, tables and figures, on a console or in one HTML file.

The file needs no network and no scripts. The same sections give the same bytes.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape as html

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

STYLE = """
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: 600; padding: .3rem .8rem .3rem 0 }
th, td { text-align: left; vertical-align: top; padding: .25rem .8rem .25rem 0;
  border-bottom: 1px solid #8884; overflow-wrap: break-word }
img { max-width: min(100%, 40rem); background: #fff }
.wide { overflow-x: auto }
.caution { border-left: .3rem solid #d55e00; padding-left: .8rem }
"""


@dataclass(frozen=True)
class Grid:
    """A table of texts."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Section:
    """A heading of a comparison with its sentences, tables and figure."""

    title: str
    sentences: Sequence[str] = ()
    cautions: Sequence[str] = ()
    """Cautions that a reader must know before believing the rest."""
    grids: Sequence[Grid] = ()
    png: bytes = b""
    """A figure, in the file only."""


def print_sections(sections: Sequence[Section], out: Console) -> None:
    """Print sections without their figures."""
    for section in sections:
        out.print(f"[bold]{escape(section.title)}[/]")
        for text in section.cautions:
            out.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)
        for text in section.sentences:
            out.print(escape(text), soft_wrap=True)
        for grid in section.grids:
            table = Table(
                *map(escape, grid.header),
                box=SIMPLE_HEAD,
                padding=(0, 1, 0, 0),
                title=escape(grid.title),
                title_justify="left",
            )
            for row in grid.rows:
                table.add_row(*map(escape, row))
            out.print(table)
        out.print()


def html_page(title: str, sections: Sequence[Section]) -> str:
    """Return sections as one HTML document."""
    body = "\n".join(map(_section, sections))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<h1>{html(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{html(section.title)}</h2>"]
    parts += [f'<p class="caution">{html(text)}</p>' for text in section.cautions]
    parts += [f"<p>{html(text)}</p>" for text in section.sentences]
    for grid in section.grids:
        rows = [_row("th", grid.header), *(_row("td", row) for row in grid.rows)]
        caption = f"<caption>{html(grid.title)}</caption>" if grid.title else ""
        table = "\n".join([f"<table>{caption}", *rows, "</table>"])
        parts.append(f'<div class="wide">{table}</div>')
    if section.png:
        data = b64encode(section.png).decode()
        parts.append(f'<p><img alt="{html(section.title)}" src="data:image/png;base64,{data}"></p>')
    return f"<section>\n{chr(10).join(parts)}\n</section>"


def _row(cell: str, texts: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{cell}>{html(text)}</{cell}>" for text in texts) + "</tr>"
