"""Verification: rendered tables and figures against the recorded runs, cell by cell."""

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
    paper_plans,
    read_paper,
    refuse_unmade,
    render_parts,
    unarchived,
)

AT_MOST = 20
"""Differences that are named of one file."""

SHOWN = 80
"""Characters that are shown of a cell."""

UNREADABLE = (
    *(OSError, ValueError, SyntaxError, AssertionError, RecursionError),
    *(csv.Error, struct.error),
)
"""What readers raise for damaged files: of PNG a SyntaxError, of HTML an AssertionError."""


def differences(committed: Path, fresh: Path, leave: Collection[str] = ()) -> list[str]:
    """Return a line for every file, cell or pixel in which two folders differ.

    `committed` is what lies there, `fresh` what the record gives now; the files named in `leave`
    must be there, and are not compared.
    """
    found: list[str] = []
    for name in sorted({*leave, *_files(committed), *_files(fresh)}):
        old, new = committed / name, fresh / name
        if not old.is_file():
            found.append(f"{name}: is not there, the paper makes it; render it again")
        elif name in leave:
            continue
        elif not new.is_file():
            found.append(f"{name}: nothing in the paper makes it; remove it")
        else:
            lines = _lines(name, old, new)
            found += lines[:AT_MOST]
            if len(lines) > AT_MOST:
                found.append(f"{name}: {len(lines) - AT_MOST} more")
    return found


def _files(root: Path) -> Iterator[str]:
    """Yield what lies below a folder but its own text; a link to a folder counts as a file."""
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
    """Yield the places in which two JSON values differ, rows by their method's name."""
    if isinstance(a, dict) and isinstance(b, dict):
        for key in [*a, *(key for key in b if key not in a)]:
            yield from _values(f"{where}, {key}", a.get(key), b.get(key))
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for place, (x, y) in enumerate(zip(a, b, strict=True), 1):
            name = x.get("method") if isinstance(x, dict) else None
            yield from _values(f"{where} {name or place}", x, y)
    elif a != b or type(a) is not type(b):
        # Only as JSON a text and a number of the same digits look different.
        alike = isinstance(a, str) and isinstance(b, str)
        texts = (a, b) if alike else (json.dumps(x, ensure_ascii=False) for x in (a, b))
        yield f"{where}: {_both(*texts)}"


def _both(old: str, new: str) -> str:
    """Return what was found and what the record gives, long texts around their first difference."""
    apart = next((i for i, (x, y) in enumerate(zip(old, new, strict=False)) if x != y), None)
    at = min(len(old), len(new)) if apart is None else apart
    return f"found {_short(old, at)}, the record gives {_short(new, at)}"


def _short(text: str, at: int = 0) -> str:
    """Return a text, or where it is long the part around a place, with dots where it is cut."""
    start = max(0, min(at - SHOWN // 2, len(text) - SHOWN))
    end = start + SHOWN
    return repr("..." * (start > 0) + text[start:end] + "..." * (end < len(text)))


class _Rows(HTMLParser):
    """The cells of all rows, and texts outside of tables as rows of one cell."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.inside = False

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        cell = tag in ("td", "th")
        # A damaged file may have cells without a row.
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
    """Return the rows and cells of a table in any of the formats; prose is rows of one cell."""
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
    """Yield a line for every cell in which two tables differ; `counted` is what their rows are."""
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
                where = f"{counted} {line}"
                if column:
                    several = f" ({where})" if firsts[x[0]] > 1 else ""
                    where = f"row {_short(x[0])}{several}, column {column!r}"
                yield f"{name}, {where}: {_both(old, new)}"


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
    """Render a paper anew and compare it with what lies in a folder, cell by cell.

    The runs are the lab's, or those of an archive (`record`), which needs neither scenes nor a
    store; figures of what archives do not hold must lie there, and are told. Raises `UserError`
    that names every difference.
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
        TemporaryDirectory(prefix="mhiflab-") as place,
        paper_plans(path, smoke, lab, record) as plans,
    ):
        fresh = Path(place)
        parts = paper.parts
        made, failed = render_parts(paper, plans, parts, fresh, quiet=True)
        left = unarchived(failed)
        refuse_unmade(path, failed, left)
        unseen = {file for name in left for file in files_of(name, parts[name])}
        found = differences(folder, fresh, leave=unseen)
    if found:
        raise UserError(
            f"{folder}: {len(found)} differences from what the recorded runs give:\n  "
            + "\n  ".join(found)
        )
    count = sum(map(len, made.values()))
    told = f"{count} files in {escape(str(folder))} follow from the recorded runs"
    if left:
        figures = "figure" if len(left) == 1 else "figures"
        told += (
            f"; {len(left)} {figures} not checked (their runs' pictures and weights are not in the "
            f"archive): {', '.join(left)}"
        )
    out.print(told, soft_wrap=True)
