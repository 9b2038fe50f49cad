"""Costs of a study's networks, module by module."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from feinfn.methods.cost import costs
from mhiflab.grid import Cell, Grid
from mhiflab.study.expand import Trial, expand
from mhiflab.study.read import read_study

IMAGE_PX = 512
"""Side of the image whose operations the tables count."""


def cost_tables(path: Path) -> Iterator[Grid]:
    """Yield one table for every distinct network of a study: parameters and GFLOP by module.

    Operations are the matrix products and convolutions of one forward pass of a 512x512 image.
    """
    trials: dict[tuple[Any, int], Trial] = {}
    for trial in expand(read_study(path), str(path)):
        trials.setdefault((trial.spec.model, trial.spec.protocol.ratio), trial)
    for (model, ratio), trial in trials.items():
        rows = []
        for cost in costs(model, ratio):
            level = cost.module.count(".")
            name = "  " * level + cost.module.rsplit(".", 1)[-1]
            kflop, gflop = cost.flop_per_pixel / 1e3, cost.flop_per_pixel * IMAGE_PX**2 / 1e9
            rows.append(
                [
                    Cell(name, "part" if level < 2 else ""),
                    Cell(f"{cost.parameters:,}", value=cost.parameters),
                    Cell(f"{kflop:,.1f}", value=kflop),
                    Cell(f"{gflop:,.1f}", value=gflop),
                ]
            )
        head = ("module", "parameters", "kFLOP per HR pixel", f"GFLOP at {IMAGE_PX}x{IMAGE_PX}")
        yield Grid(head, rows, f"{trial.label}, x{ratio}")
