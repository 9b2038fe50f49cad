"""Published numbers, as they were printed: quoted beside our own, never mixed with them."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from feinfn.errors import UserError
from feinfn.metrics.evaluation import METRICS
from mhiflab.study.yaml_values import check_line

PRINTED = tuple(name for metric in METRICS for name in (metric, f"{metric}_std"))

COLUMNS = (
    "method",
    "data",
    "ratio",
    *PRINTED,
    "parameters_counted",
    "source",
    "protocol",
    "convention",
)
"""The columns of a file of published numbers; cells that nobody printed are empty.

`parameters_counted` is no quotation: millions, counted on the released code for 31 + 3 bands at
ratio `COUNTED_RATIO`.
"""

COUNTED_RATIO = 4
"""The ratio that counts of parameters hold at: upsampling layers depend on it."""

NOT_TOLD = "-"
"""Stands for numbers that nobody printed."""

NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


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
    """In millions, counted by us on the released code; known at ratio `COUNTED_RATIO` alone."""
    spreads: dict[str, str] = field(default_factory=dict)
    """Standard deviations over images, where printed."""


def read_published(path: Path, data: str, ratio: int) -> list[Quoted]:
    """Return the rows of one data set and ratio in the order of the file, a CSV in UTF-8.

    Numbers stay text, so that their digits are those of the source. Lines that begin with # are
    comments. Raises `UserError` for a file that is no such CSV, for missing or unknown columns,
    for numbers that are none, and where no row fits.
    """
    every = list(_rows(path))
    rows = [row for row in every if row["data"] == data and int(row["ratio"]) == ratio]
    if not rows:
        known = ", ".join(sorted({f"{row['data']} x{int(row['ratio'])}" for row in every}))
        raise UserError(
            f"{path}: found nothing of {data} x{ratio}, expected one of: {known or 'no row'}"
        )
    found = []
    for row in rows:
        values = {metric: row[metric] for metric in METRICS if row[metric]}
        spreads = {m: row[f"{m}_std"] for m in METRICS if row[f"{m}_std"]}
        about = (
            f"protocol: {row['protocol'] or 'unknown'}; metrics: {row['convention'] or 'unknown'}"
        )
        counted = row["parameters_counted"] if ratio == COUNTED_RATIO else ""
        found.append(
            Quoted(row["method"], values, row["source"], about, counted or NOT_TOLD, spreads)
        )
    return found


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield every row; raise `UserError` for what is no table, and for cells of another kind."""
    if not path.is_file():
        raise UserError(f"{path}: no such file of published values, expected a CSV")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: found byte {error.start} that is no UTF-8, expected a CSV in UTF-8; save it "
            "in this encoding"
        ) from None
    head: list[str] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip() or line.startswith("#"):
            continue
        where = f"{path}: line {number}"
        try:
            # Each line alone: no cell holds a line break.
            (cells,) = csv.reader([line], strict=True)
        except csv.Error as error:
            raise UserError(
                f"{where}: {error}, expected one row a line; close every quote in its line"
            ) from None
        if not head:
            head = cells
            if sorted(head) != sorted(COLUMNS):
                raise UserError(
                    f"{path}: found columns {', '.join(head)}, expected {', '.join(COLUMNS)}"
                )
        elif len(cells) != len(head):
            raise UserError(
                f"{where}: found {len(cells)} cells, expected {len(head)}; quote texts that hold a "
                "comma"
            )
        else:
            row = dict(zip(head, cells, strict=True))
            _check(where, row)
            yield row
    if not head:
        raise UserError(f"{path}: found no line of a table, expected columns {', '.join(COLUMNS)}")


def _check(where: str, row: dict[str, str]) -> None:
    """Raise `UserError` unless the cells of a row hold what they should."""
    for column in ("method", "data", "source", "protocol", "convention"):
        if row[column] or column in ("method", "data", "source"):
            check_line(row[column], f"{where}: {column}")
    if not re.fullmatch("[1-9][0-9]*", row["ratio"]):
        raise UserError(f"{where}: ratio: found {row['ratio']!r}, expected an integer such as 4")
    for column in (*PRINTED, "parameters_counted"):
        if row[column] and not NUMBER.fullmatch(row[column]):
            raise UserError(
                f"{where}: {column}: found {row[column]!r}, expected a number such as 52.47, or "
                "nothing"
            )
    if not any(row[metric] for metric in METRICS):
        raise UserError(
            f"{where}: found no printed number of {row['method']}, expected one or more; remove "
            "the line"
        )
