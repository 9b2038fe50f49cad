"""PSNR against parameters: own runs, and published values beside them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from feinfn.describe import costs
from feinfn.errors import UserError
from feinfn.metrics import CONVENTION
from mhiflab.figures.kind import Cases, Drawn
from mhiflab.plan import Entry
from mhiflab.plots.cost import cost_figure
from mhiflab.recorded import Recorded

NEEDED = ("method", "parameters", "psnr")
SIDE_PX = 64
"""Side of the image that costs are told for."""


@dataclass(frozen=True, kw_only=True)
class CostOptions(Cases):
    """Options of the bubbles."""

    published: str | None = None
    """CSV file of others' numbers: method, parameters, psnr, and if known gflop (of one image of 64
    x 64 pixels), protocol (rows of another than the study's are left out) and source."""


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
        row = {"method": recorded.labels[case], "psnr": psnr_N.mean(), "seeds": len(psnr_N)}
        row["psnr_std"] = psnr_N.std(ddof=1) if len(psnr_N) > 1 else np.nan
        row["parameters"] = recorded.provenance(of_case[0])["parameters"]
        # What learns nothing is no network whose operations could be counted.
        cost = _gflop(of_case[0]) if row["parameters"] else np.nan
        rows.append(row | {"cost": cost, "measured": True, "source": "runs"})
    own = pd.DataFrame(rows).assign(protocol=entries[0].trial.spec.protocol.name)
    tables = [own]
    if options.published:
        tables.append(read_published(Path(options.published), own["protocol"].iloc[0]))
    numbers = pd.concat(tables, ignore_index=True)
    figure = cost_figure(numbers, f"GFLOP at {SIDE_PX} px")
    return Drawn(figure, numbers.rename(columns={"cost": "gflop"}))


def _gflop(entry: Entry) -> float:
    spec = entry.trial.spec
    return costs(spec.model, spec.protocol.ratio)[0].flop_per_pixel * SIDE_PX**2 / 1e9


def read_published(path: Path, protocol: str) -> pd.DataFrame:
    """Read others' numbers under a protocol; raises `UserError` for a file that has none."""
    try:
        table = pd.read_csv(path, comment="#")
    except (OSError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise UserError(
            f"option published: {path}: cannot be read as CSV ({str(error).splitlines()[0]})"
        ) from None
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise UserError(
            f"option published: {path}: found columns {', '.join(table.columns)}, expected also "
            + ", ".join(missing)
        )
    if "protocol" in table:
        table = table[table["protocol"] == protocol]
    for name in ("parameters", "psnr", "gflop"):
        try:
            table = table.assign(**{name: pd.to_numeric(table.get(name, np.nan))})
        except ValueError as error:
            raise UserError(
                f"option published: {path}: column {name}: {error}; expected a number, or nothing"
            ) from None
    # What a method's authors do not tell has no place in the plane.
    table = table.dropna(subset=["parameters", "psnr"])
    if table.empty:
        raise UserError(
            f"option published: {path}: found no row with parameters and PSNR under protocol "
            f"{protocol}, expected one or more"
        )
    kept = [*NEEDED, "gflop", *(name for name in ("protocol", "source") if name in table)]
    return table[kept].rename(columns={"gflop": "cost"}).assign(measured=False)
