"""Costs of a study's networks as console tables."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from feinfn.methods.cost import costs
from mhiflab.study.expand import Trial, expand
from mhiflab.study.read import read_study

IMAGE_PX = 512
"""Side of the image whose operations the tables count."""


def cost_tables(path: Path) -> Iterator[Table]:
    """Yield one table for every distinct network of a study: parameters and GFLOP by module.

    Operations are the matrix products and convolutions of one forward pass of a 512x512 image.
    """
    trials: dict[tuple[Any, int], Trial] = {}
    for trial in expand(read_study(path), str(path)):
        trials.setdefault((trial.spec.model, trial.spec.protocol.ratio), trial)
    for (model, ratio), trial in trials.items():
        table = Table("module", title=f"{trial.label}, x{ratio}", title_justify="left")
        for column in ("parameters", "kFLOP per HR pixel", f"GFLOP at {IMAGE_PX}x{IMAGE_PX}"):
            table.add_column(column, justify="right")
        for cost in costs(model, ratio):
            level = cost.module.count(".")
            name = "  " * level + cost.module.rsplit(".", 1)[-1]
            table.add_row(
                f"[bold]{name}[/]" if level < 2 else name,
                f"{cost.parameters:,}",
                f"{cost.flop_per_pixel / 1e3:,.1f}",
                f"{cost.flop_per_pixel * IMAGE_PX**2 / 1e9:,.1f}",
            )
        yield table
