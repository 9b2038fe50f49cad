"""Costs of a study's networks as console tables."""

from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from feinfn.methods.cost import costs
from mhiflab.study.expand import expand
from mhiflab.study.read import read_study

IMAGE_PX = 512
"""Side of the image whose operations the tables count."""


def cost_tables(path: Path) -> Iterator[Table]:
    """Yield one table for every distinct network of a study: parameters and GFLOP by module.

    Operations are the matrix products and convolutions of one forward pass of a 512x512 image.
    """
    study = read_study(path)
    seen = set()
    for trial in expand(study, str(path)):
        ratio = trial.spec.protocol.ratio
        if (trial.spec.model, ratio) in seen:
            continue
        seen.add((trial.spec.model, ratio))
        table = Table(title=f"{trial.label}, x{ratio}", title_justify="left")
        table.add_column("module")
        table.add_column("parameters", justify="right")
        table.add_column("kFLOP per HR pixel", justify="right")
        table.add_column(f"GFLOP at {IMAGE_PX}x{IMAGE_PX}", justify="right")
        for cost in costs(trial.spec.model, ratio):
            level = cost.module.count(".")
            name = "  " * level + cost.module.rsplit(".", 1)[-1]
            table.add_row(
                f"[bold]{name}[/]" if level < 2 else name,
                f"{cost.parameters:,}",
                f"{cost.flop_per_pixel / 1e3:,.1f}",
                f"{cost.flop_per_pixel * IMAGE_PX**2 / 1e9:,.1f}",
            )
        yield table
