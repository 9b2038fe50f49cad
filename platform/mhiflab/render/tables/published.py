"""Published numbers as printed: quoted beside our own, never mixed with them."""

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from feinfn.errors import UserError, require
from feinfn.metrics.label import METRICS
from mhiflab.study.yaml_values import check_line

COUNTED_RATIO = 4
"""Ratio at which parameters are counted, because upsampling layers depend on it."""

NOT_TOLD = "-"
"""Text in place of an unknown number."""

COLUMNS = (
    *("method", "data", "ratio"),
    *(name for metric in METRICS for name in (metric, f"{metric}_std")),
    *("parameters_counted", "source", "protocol", "convention"),
)
"""Columns of a file of published numbers. Deviations are over images. Parameters in millions are
not quoted but counted on the released code for 31 + 3 bands at ratio `COUNTED_RATIO`."""

LINES = {"method": True, "data": True, "source": True, "protocol": False, "convention": False}
"""Columns of texts, and whether they must be known."""


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
    rows = list(_rows(path))
    fitting = [row for row in rows if (row["data"], row["ratio"]) == (data, str(ratio))]
    if not fitting:
        sets = ", ".join(sorted({f"{row['data']} x{row['ratio']}" for row in rows})) or "no row"
        raise UserError(f"{path}: found nothing of {data} x{ratio}, expected one of: {sets}")
    return [
        QuotedRow(
            row["method"],
            {metric: row[metric] for metric in METRICS if row[metric]},
            row["source"],
            f"protocol: {row['protocol'] or 'unknown'}; metrics: {row['convention'] or 'unknown'}",
            (row["parameters_counted"] if ratio == COUNTED_RATIO else "") or NOT_TOLD,
            {metric: row[f"{metric}_std"] for metric in METRICS if row[f"{metric}_std"]},
        )
        for row in fitting
    ]


def _check(row: Mapping[str, str]) -> None:
    """Raise `UserError` that names the first invalid cell."""
    for name in COLUMNS:
        text = row[name]
        if name in LINES:
            if text or LINES[name]:
                check_line(text, name)
        elif name == "ratio":
            require(bool(re.fullmatch("[1-9][0-9]*", text)), name, text, "an integer such as 4")
        else:
            is_number = not text or re.fullmatch(r"[0-9]+(\.[0-9]+)?", text)
            require(bool(is_number), name, text, "a number such as 52.47, or nothing")
    if not any(row[metric] for metric in METRICS):
        raise UserError(
            f"found no printed number of {row['method']}, expected one or more; remove the line"
        )


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
    lines = ("\n" if x.startswith("#") or not x.strip() else x for x in text.splitlines(True))
    # The standard reader, because pandas drops surplus cells or makes an index of them.
    reader = csv.reader(lines, strict=True)
    rows = filter(None, reader)
    try:
        head = next(rows, [])
        if sorted(head) != sorted(COLUMNS):
            raise UserError(
                f"{path}: found columns {', '.join(head) or 'none'}, expected {', '.join(COLUMNS)}"
            )
        for cells in rows:
            where = f"{path}: line {reader.line_num}"
            if len(cells) != len(head):
                raise UserError(
                    f"{where}: found {len(cells)} cells, expected {len(head)}; quote texts that "
                    "hold a comma"
                )
            row = dict(zip(head, cells, strict=True))
            try:
                _check(row)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
            yield row
    except csv.Error as error:
        raise UserError(
            f"{path}: line {reader.line_num}: {error}, expected one row a line; close every quote "
            "in its line"
        ) from None
