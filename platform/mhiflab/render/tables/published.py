"""Published numbers as printed: quoted beside our own, never mixed with them."""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from feinfn.errors import UserError, require
from feinfn.metrics.evaluation import METRICS
from mhiflab.study.yaml_values import build, check_line

COUNTED_RATIO = 4
"""Ratio at which parameters are counted, because upsampling layers depend on it."""

NOT_TOLD = "-"
"""Text in place of an unknown number."""


def _line(text: str) -> str:
    check_line(text, "")
    return text


def _matching(pattern: str, expected: str) -> AfterValidator:
    def check(text: str) -> str:
        require(re.fullmatch(pattern, text) is not None, "", text, expected)
        return text

    return AfterValidator(check)


Line = Annotated[str, AfterValidator(_line)]
Known = Annotated[str, AfterValidator(lambda text: text and _line(text))]
"""A line, or nothing if it is not known."""
Number = Annotated[str, _matching(r"([0-9]+(\.[0-9]+)?)?", "a number such as 52.47, or nothing")]
"""A number digit by digit as printed, or nothing."""


@dataclass(frozen=True)
class PublishedRow:
    """A row of a file of published numbers; its fields are the columns."""

    method: Line
    data: Line
    ratio: Annotated[str, _matching("[1-9][0-9]*", "an integer such as 4")]
    psnr: Number
    psnr_std: Number
    """Standard deviation over images, as for the other metrics."""
    sam: Number
    sam_std: Number
    ergas: Number
    ergas_std: Number
    ssim: Number
    ssim_std: Number
    parameters_counted: Number
    """Millions, not quoted but counted on the released code for 31 + 3 bands at ratio
    `COUNTED_RATIO`."""
    source: Line
    protocol: Known
    convention: Known

    def __post_init__(self) -> None:
        if not any(getattr(self, metric) for metric in METRICS):
            raise UserError(
                f"found no printed number of {self.method}, expected one or more; remove the line"
            )


COLUMNS = tuple(one.name for one in fields(PublishedRow))


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
    fitting = [row for row in rows if (row.data, row.ratio) == (data, str(ratio))]
    if not fitting:
        sets = ", ".join(sorted({f"{row.data} x{row.ratio}" for row in rows})) or "no row"
        raise UserError(f"{path}: found nothing of {data} x{ratio}, expected one of: {sets}")
    return [
        QuotedRow(
            row.method,
            {metric: text for metric in METRICS if (text := getattr(row, metric))},
            row.source,
            f"protocol: {row.protocol or 'unknown'}; metrics: {row.convention or 'unknown'}",
            (row.parameters_counted if ratio == COUNTED_RATIO else "") or NOT_TOLD,
            {metric: text for metric in METRICS if (text := getattr(row, f"{metric}_std"))},
        )
        for row in fitting
    ]


def _rows(path: Path) -> Iterator[PublishedRow]:
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
            yield build(PublishedRow, dict(zip(head, cells, strict=True)), where)
    except csv.Error as error:
        raise UserError(
            f"{path}: line {reader.line_num}: {error}, expected one row a line; close every quote "
            "in its line"
        ) from None
