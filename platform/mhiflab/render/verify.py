"""Verification: compare rendered tables and figures with the recorded runs, cell by cell."""

import csv
import io
import json
import re
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.paths import Lab, study_name
from mhiflab.render.paper import (
    files_of,
    not_archived,
    paper_plans,
    raise_failures,
    read_paper,
    render_parts,
)

AT_MOST = 20
"""Differences reported per file."""

SHOWN = 80
"""Characters of a cell to show."""

UNREADABLE = (
    *(OSError, ValueError, SyntaxError, AssertionError, RecursionError),
    *(csv.Error, struct.error),
)
"""Errors of readers for damaged files: SyntaxError for PNG, AssertionError for HTML."""


def differences(committed: Path, fresh: Path, leave: Collection[str] = ()) -> list[str]:
    """Return a line for every file, cell or image in which two folders differ.

    `committed` holds the files to check and `fresh` those that the record gives now. Files named in
    `leave` must exist but are not compared.
    """
    problems: list[str] = []
    for name in sorted({*leave, *_files(committed), *_files(fresh)}):
        old, new = committed / name, fresh / name
        if not old.is_file():
            problems.append(f"{name}: is not there, the paper makes it; render it again")
        elif name in leave:
            continue
        elif not new.is_file():
            problems.append(f"{name}: nothing in the paper makes it; remove it")
        else:
            lines = _lines(name, old, new)
            problems += lines[:AT_MOST]
            if len(lines) > AT_MOST:
                problems.append(f"{name}: {len(lines) - AT_MOST} more")
    return problems


def _files(root: Path) -> Iterator[str]:
    """Yield the names of all files below a folder except its README; links count as files."""
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if name != "README.md" and (path.is_file() or path.is_symlink()):
            yield name


def _lines(name: str, old: Path, new: Path) -> list[str]:
    try:
        if old.read_bytes() == new.read_bytes():
            return []
        return list(_cells(old, new)) or [f"{name}: other bytes with the same content"]
    except UNREADABLE as error:
        return [f"{name}: cannot be read ({error})"]


def _cells(old: Path, new: Path) -> Iterator[str]:
    kind = old.suffix.lower()
    if kind == ".png":
        yield from _pixels(old, new)
        return
    if kind == ".pdf":
        yield f"{old.name}: another drawing"
        return
    a, b = (path.read_bytes().decode() for path in (old, new))
    if kind == ".json":
        yield from _values(old.name, json.loads(a), json.loads(b))
        return
    counted = "row" if kind == ".html" else "line"
    yield from _grid_differences(old.name, _grid(kind, a), _grid(kind, b), counted)


def _values(where: str, a: Any, b: Any) -> Iterator[str]:
    """Yield a line for every difference of two JSON values; rows are named by their method."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from _values(f"{where}, {key}", a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for place, (x, y) in enumerate(zip(a, b, strict=True), 1):
            name = x.get("method") if isinstance(x, dict) else None
            yield from _values(f"{where} {name or place}", x, y)
    elif a != b or type(a) is not type(b):
        # Written as JSON, a text and a number of the same digits look different.
        alike = isinstance(a, str) and isinstance(b, str)
        texts = (a, b) if alike else (json.dumps(x, ensure_ascii=False) for x in (a, b))
        yield f"{where}: {_both_texts(*texts)}"


def _both_texts(old: str, new: str) -> str:
    """Return both texts in words, long ones cut around their first difference."""
    first_difference = next(
        (i for i, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), None
    )
    place = min(len(old), len(new)) if first_difference is None else first_difference
    return f"found {_shortened(old, place)}, the record gives {_shortened(new, place)}"


def _shortened(text: str, place: int = 0) -> str:
    """Return a text; cut a long one around a place, with dots at the cuts."""
    start = max(0, min(place - SHOWN // 2, len(text) - SHOWN))
    end = start + SHOWN
    return repr("..." * (start > 0) + text[start:end] + "..." * (end < len(text)))


class _Rows(HTMLParser):
    """A parser of HTML that keeps the cells of all rows, and other texts as rows of one cell."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        cell = tag in ("td", "th")
        # A damaged file may have cells outside a row.
        if tag == "tr" or (cell and not self.rows):
            self.rows.append([])
        if cell:
            self.rows[-1].append("")
        self.inside = tag in ("td", "th", "b", "u") if tag != "tr" else False
        if tag in ("b", "u") and self.rows and self.rows[-1]:
            self.rows[-1][-1] += f"<{tag}>"

    def handle_data(self, data: str) -> None:
        if not data.strip():
            return
        if self.inside and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data
        else:
            self.rows.append([data.strip()])


def _grid(kind: str, text: str) -> list[list[str]]:
    """Return the rows of cells of a table in any format; prose lines are rows of one cell."""
    if kind == ".csv":
        return list(csv.reader(io.StringIO(text)))
    if kind == ".html":
        rows = _Rows()
        rows.feed(text)
        return rows.rows
    if kind == ".md":
        return [
            [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            if line.startswith("|")
            else [line]
            for line in text.splitlines()
        ]
    if kind == ".tex":
        return [
            [line]
            if line.startswith("%")
            else [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))]
            for line in text.splitlines()
        ]
    return [[line] for line in text.splitlines()]


def _grid_differences(
    name: str, a: list[list[str]], b: list[list[str]], counted: str
) -> Iterator[str]:
    """Yield a line for every cell in which two tables differ; `counted` is the word for a row."""
    if len(a) != len(b):
        yield f"{name}: found {len(a)} lines, the record gives {len(b)}"
    firsts = Counter(row[0] for row in a if row)
    header: list[str] = next((row for row in a if len(row) > 2), [])
    for line, (x, y) in enumerate(zip(a, b, strict=False), 1):
        if len(x) != len(y):
            yield f"{name}, {counted} {line}: found {len(x)} cells, the record gives {len(y)}"
            continue
        for place, (old, new) in enumerate(zip(x, y, strict=True)):
            if old != new:
                column = header[place] if len(x) == len(header) else ""
                position = f"{counted} {line}"
                if column:
                    several = f" ({position})" if firsts[x[0]] > 1 else ""
                    position = f"row {_shortened(x[0])}{several}, column {column!r}"
                yield f"{name}, {position}: {_both_texts(old, new)}"


def _pixels(old: Path, new: Path) -> Iterator[str]:
    from matplotlib.image import imread

    a, b = np.asarray(imread(old)), np.asarray(imread(new))
    if a.shape != b.shape:
        yield (
            f"{old.name}: found {a.shape[1]}x{a.shape[0]} pixels, the record gives "
            f"{b.shape[1]}x{b.shape[0]}"
        )
        return
    changed = (a != b).any(axis=-1)
    if changed.any():
        rows, columns = np.nonzero(changed)
        yield (
            f"{old.name}: {changed.sum()} of {changed.size} pixels differ, in rows "
            f"{rows.min()} to {rows.max()}, columns {columns.min()} to {columns.max()}"
        )


def verify_paper(
    path: Path, smoke: bool, lab: Lab, rendered: Path | None = None, record: Path | None = None
) -> None:
    """Render a paper again and compare it with the files of a folder, cell by cell.

    The runs are the lab's, or those of an archive (`record`), which needs no scenes and no store.
    Figures whose data archives do not hold must exist; they are listed as not checked. Raises
    `UserError` that names every difference.
    """
    paper = read_paper(path)
    name = study_name(path, smoke)
    folder = rendered or path.parent / "rendered" / name
    if not folder.is_dir():
        command = f"{path}{' --smoke' if smoke else ''}"
        raise UserError(
            f"{folder}: no such folder of rendered tables and figures; make them with mhiflab "
            f"table {command} and mhiflab figure {command}, then copy {lab.rendered(name)} there "
            "or name that with --rendered"
        )
    with (
        TemporaryDirectory(prefix="mhiflab-") as temporary,
        paper_plans(path, smoke, lab, record) as plans,
    ):
        fresh = Path(temporary)
        parts = paper.parts
        files, failed = render_parts(paper, plans, parts, fresh, quiet=True)
        skipped = not_archived(failed)
        raise_failures(path, failed, skipped)
        unchecked = {file for name in skipped for file in files_of(name, parts[name])}
        problems = differences(folder, fresh, leave=unchecked)
    if problems:
        raise UserError(
            f"{folder}: {len(problems)} differences from what the recorded runs give:\n  "
            + "\n  ".join(problems)
        )
    count = sum(map(len, files.values()))
    summary = f"{count} files in {escape(str(folder))} follow from the recorded runs"
    if skipped:
        figures = "figure" if len(skipped) == 1 else "figures"
        summary += (
            f"; {len(skipped)} {figures} not checked (their runs' pictures and weights are not in "
            f"the archive): {', '.join(skipped)}"
        )
    out.print(summary, soft_wrap=True)
