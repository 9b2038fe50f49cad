"""A comparison as sections of sentences, tables and figures, on a console or in one HTML file."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.markup import escape

from mhiflab.console import out
from mhiflab.grid import Grid


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


def print_sections(sections: Sequence[Section]) -> None:
    """Print sections without their figures."""
    for section in sections:
        out.print(f"[bold]{escape(section.title)}[/]")
        for text in section.cautions:
            out.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)
        for text in section.sentences:
            out.print(escape(text), soft_wrap=True)
        for grid in section.grids:
            out.print("", grid, sep="\n")
        out.print()
