"""Console that every command prints to."""

from rich.console import Console

out = Console(highlight=False)
