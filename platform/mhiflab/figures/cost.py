"""PSNR against parameters: own runs, and published values beside them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from feinfn.errors import UserError
from feinfn.methods.cost import costs, parameters_of
from feinfn.metrics.conventions import CONVENTION
from mhiflab.figures.kind import Cases, Drawn
from mhiflab.plan.plan import Entry
from mhiflab.plots.cost import cost_figure
from mhiflab.published import NOT_TOLD, read_published
from mhiflab.recorded import Recorded

SIDE_PX = 64
"""Side of the image that costs are told for."""


@dataclass(frozen=True, kw_only=True)
class CostOptions(Cases):
    """Options of the bubbles."""

    published: str | None = None
    """CSV file of published numbers (see `mhiflab.published`); their protocols differ from ours."""
    data: str = "cave"
    """Data set whose rows of that file are shown, at the study's ratio."""


def draw_cost(recorded: Recorded, options: CostOptions) -> Drawn:
    """Draw the mean over seeds of the mean over test images; bubbles are operations."""
    entries = recorded.comparable(recorded.entries(options.cases))
    rows = []
    for case in dict.fromkeys(entry.trial.case for entry in entries):
        of_case = [entry for entry in entries if entry.trial.case == case]
        means = [recorded.means(entry) for entry in of_case]
        if any(one["convention"] != CONVENTION for one in means):
            raise UserError(
                f"{of_case[0].who}: found no PSNR, as its test images have no reference; expected "
                "one; choose a study of simulated pairs"
            )
        psnr_N = np.array([one["psnr"] for one in means])
        row = {"method": recorded.labels[case], "psnr": psnr_N.mean()}
        row["seeds"] = sum(entry.trial.spec.trained for entry in of_case)
        row["psnr_std"] = psnr_N.std(ddof=1) if len(psnr_N) > 1 else np.nan
        row["parameters"] = parameters_of(of_case[0].trial.spec.model)
        # What learns nothing is no network whose operations could be counted.
        cost = _gflop(of_case[0]) if row["parameters"] else np.nan
        rows.append(row | {"cost": cost, "measured": True, "source": "runs"})
    own = pd.DataFrame(rows).assign(protocol=entries[0].trial.spec.protocol.name)
    tables = [own]
    if options.published:
        ratio = entries[0].trial.spec.protocol.ratio
        tables.append(_quoted(Path(options.published), options.data, ratio))
    numbers = pd.concat(tables, ignore_index=True)
    figure = cost_figure(numbers, f"GFLOP at {SIDE_PX} px")
    return Drawn(figure, numbers.rename(columns={"cost": f"gflop_at_{SIDE_PX}_px"}))


def _gflop(entry: Entry) -> float:
    spec = entry.trial.spec
    return costs(spec.model, spec.protocol.ratio)[0].flop_per_pixel * SIDE_PX**2 / 1e9


def _quoted(path: Path, data: str, ratio: int) -> pd.DataFrame:
    """Return others' numbers; who does not tell PSNR or parameters has no place in the plane."""
    rows = [
        {
            "method": one.method,
            "psnr": float(one.values["psnr"]),
            "parameters": float(one.parameters) * 1e6,
            "source": one.source,
            "protocol": one.about,
            "measured": False,
        }
        for one in read_published(path, data, ratio)
        if "psnr" in one.values and one.parameters != NOT_TOLD
    ]
    if not rows:
        raise UserError(
            f"{path}: found no row of {data} x{ratio} with parameters and PSNR, expected one or "
            "more; leave the option published out"
        )
    return pd.DataFrame(rows).assign(cost=np.nan)
