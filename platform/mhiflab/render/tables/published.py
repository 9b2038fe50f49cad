"""Published numbers as printed: quoted beside our own, never mixed with them."""

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
"""Columns of a file of published numbers; cells without a printed number are empty.

`parameters_counted` is not quoted: it is in millions, counted on the released code for 31 + 3 bands
at ratio `COUNTED_RATIO`.
"""

COUNTED_RATIO = 4
"""Ratio at which parameters are counted, because upsampling layers depend on it."""

NOT_TOLD = "-"
"""Text in place of an unknown number."""

NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")


@dataclass(frozen=True)
class QuotedRow:
    """Numbers of one method, digit by digit as printed."""

    method: str
    values: dict[str, str]
    """Printed numbers by metric."""
    source: str
    """Short name of the publication."""
    about: str
    """Protocol and definition of metrics, as far as known."""
    parameters: str = NOT_TOLD
    """Millions, counted by us on the released code; known only at ratio `COUNTED_RATIO`."""
    spreads: dict[str, str] = field(default_factory=dict)
    """Printed standard deviations over images by metric."""


def read_published(path: Path, data: str, ratio: int) -> list[QuotedRow]:
    """Return the rows of one data set and ratio from a CSV file in UTF-8, in its order.

    Numbers stay text, which keeps the digits of the source. Lines that begin with # are comments.
    Raises `UserError` if the file is not such a CSV, if columns are missing or unknown, if a cell
    is not a number, or if no row fits.
    """
    all_rows = list(_rows(path))
    rows = [row for row in all_rows if row["data"] == data and int(row["ratio"]) == ratio]
    if not rows:
        sets = ", ".join(sorted({f"{row['data']} x{int(row['ratio'])}" for row in all_rows}))
        raise UserError(
            f"{path}: found nothing of {data} x{ratio}, expected one of: {sets or 'no row'}"
        )
    quoted = []
    for row in rows:
        values = {metric: row[metric] for metric in METRICS if row[metric]}
        spreads = {m: row[f"{m}_std"] for m in METRICS if row[f"{m}_std"]}
        about = (
            f"protocol: {row['protocol'] or 'unknown'}; metrics: {row['convention'] or 'unknown'}"
        )
        parameters = row["parameters_counted"] if ratio == COUNTED_RATIO else ""
        quoted.append(
            QuotedRow(row["method"], values, row["source"], about, parameters or NOT_TOLD, spreads)
        )
    return quoted


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """Yield every row; raise `UserError` if the file is not a table or a cell is invalid."""
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
            # Parse each line alone, because no cell holds a line break.
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
    """Raise `UserError` if a cell of a row is invalid."""
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
