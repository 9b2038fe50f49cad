"""Published numbers, as they were printed: quoted beside our own, never mixed with them."""

from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from feinfn.errors import UserError
from feinfn.metrics import METRICS

COLUMNS = (
    "method",
    "data",
    "ratio",
    *(name for metric in METRICS for name in (metric, f"{metric}_std")),
    "parameters",
    "source",
    "protocol",
    "convention",
)
"""The columns of a file of published numbers; cells that nobody printed are empty."""


NOT_TOLD = "-"
"""Stands for numbers that nobody printed."""


@dataclass(frozen=True)
class Quoted:
    """One method's numbers, digit by digit as printed."""

    method: str
    values: dict[str, str]
    """By metric, where printed."""
    source: str
    """A short name of the publication."""
    about: str
    """Under which protocol and definition of metrics, as far as known."""
    parameters: str = NOT_TOLD
    """In millions, as printed or counted."""
    spreads: dict[str, str] = field(default_factory=dict)
    """Standard deviations over images, where printed."""


def read_published(path: Path, data: str, ratio: int) -> list[Quoted]:
    """Return the rows of one data set and ratio in the order of the file.

    Numbers stay text, so that their digits are those of the source. Raises `UserError` for missing
    or unknown columns, for numbers that are none, and where no row fits.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file of published values, expected a CSV")
    frame = pd.read_csv(path, dtype=str, keep_default_na=False, comment="#")
    odd = set(frame.columns) ^ set(COLUMNS)
    if odd:
        raise UserError(
            f"{path}: found columns {', '.join(frame.columns)}, expected {', '.join(COLUMNS)}"
        )
    for column in ("ratio", *COLUMNS[3:-3]):
        for line, text in enumerate(frame[column], 2):
            try:
                float(text or "0")
            except ValueError:
                raise UserError(
                    f"{path}: line {line}: {column}: found {text!r}, expected a number or nothing"
                ) from None
    rows = frame[(frame["data"] == data) & (frame["ratio"] == str(ratio))]
    if rows.empty:
        known = sorted({f"{d} x{r}" for d, r in zip(frame["data"], frame["ratio"], strict=True)})
        raise UserError(f"{path}: found nothing of {data} x{ratio}, expected one of {known}")
    found = []
    for row in rows.to_dict("records"):
        values = {metric: row[metric] for metric in METRICS if row[metric]}
        spreads = {m: row[f"{m}_std"] for m in METRICS if row[f"{m}_std"]}
        about = (
            f"protocol: {row['protocol'] or 'unknown'}; metrics: {row['convention'] or 'unknown'}"
        )
        found.append(
            Quoted(
                row["method"], values, row["source"], about, row["parameters"] or NOT_TOLD, spreads
            )
        )
    return found
