"""Verification: compare rendered tables and figures with what the recorded runs give."""

import json
import re
import struct
from collections.abc import Collection, Iterator
from difflib import SequenceMatcher
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.paths import REPORT_FILE, Lab, study_name
from mhiflab.record.artifacts import NotArchivedError
from mhiflab.render.paper import opened_plans, raise_failures, render_parts
from mhiflab.study.schema import Paper

AT_MOST = 20
"""Differences reported per file."""

SHOWN = 80
"""Characters of a text to show."""

CELL = re.compile(r"(?<!\\)[|&](?!\w+;)|</t[dh]>|,(?!\s)")
"""Ends of cells in Markdown, LaTeX, HTML and CSV."""

UNREADABLE = (OSError, ValueError, SyntaxError, RecursionError, struct.error)
"""Errors of readers for damaged files: SyntaxError for PNG."""


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
        elif name == REPORT_FILE and not new.is_file():
            problems.append(f"{name}: a report is not verified; keep it elsewhere")
        elif name not in leave and not new.is_file():
            problems.append(f"{name}: nothing in the paper makes it; remove it")
        elif name not in leave:
            lines = _differing(name, old, new)
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


def _differing(name: str, old: Path, new: Path) -> list[str]:
    try:
        if old.read_bytes() == new.read_bytes():
            return []
        if old.suffix == ".png":
            return [f"{name}: {_pixels(old, new)}"]
        if old.suffix == ".pdf":
            return [f"{name}: another drawing"]
        a, b = (path.read_bytes().decode() for path in (old, new))
        if old.suffix == ".json":
            values = list(_values(name, json.loads(a), json.loads(b)))
            return values or [f"{name}: other bytes with the same content"]
        return list(_lines(name, a.splitlines(), b.splitlines()))
    except UNREADABLE as error:
        return [f"{name}: cannot be read ({error})"]


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
        yield f"{where}: {_both(*((a, b) if alike else map(json.dumps, (a, b))))}"


def _lines(name: str, a: list[str], b: list[str]) -> Iterator[str]:
    """Yield a line for every line in which two texts differ, with its cell in a table."""
    head = re.findall('<th scope="col"[^>]*>(.*?)</th>', "\n".join(a))
    # Behind a row's last cell in HTML is its end.
    head = [*head, ""] if head else next((x for x in map(CELL.split, a) if len(x) > 2), [])
    for kind, start, end, *of_b in SequenceMatcher(None, a, b, False).get_opcodes():
        if kind == "equal":
            continue
        found, fresh = a[start:end], b[slice(*of_b)]
        if len(found) != len(fresh):
            yield f"{name}, line {start + 1}: {_both(' '.join(found), ' '.join(fresh))}"
            continue
        for line, (old, new) in enumerate(zip(found, fresh, strict=True), start + 1):
            x, y = CELL.split(old), CELL.split(new)
            where = f"{name}, line {line}"
            if not len(x) == len(y) == len(head):
                yield f"{where}: {_both(old, new)}"
                continue
            names = [re.sub("<[^>]*>", "", cell).strip() for cell in (*head, *x)]
            row = next(filter(None, names[len(head) :]))
            for column, before, after in zip(names, x, y, strict=False):
                if before != after:
                    yield f"{where} ({row}, {column}): {_both(before.strip(), after.strip())}"


def _both(old: str, new: str) -> str:
    """Return both texts in words, long ones cut around their first difference."""
    pairs = enumerate(zip(old, new, strict=False))
    place = next((i for i, (x, y) in pairs if x != y), min(len(old), len(new)))
    return f"found {_shortened(old, place)}, the record gives {_shortened(new, place)}"


def _shortened(text: str, place: int = 0) -> str:
    """Return a text; cut a long one around a place, with dots at the cuts."""
    start = max(0, min(place - SHOWN // 2, len(text) - SHOWN))
    end = start + SHOWN
    return repr("..." * (start > 0) + text[start:end] + "..." * (end < len(text)))


def _pixels(old: Path, new: Path) -> str:
    from matplotlib.image import imread

    a, b = imread(old), imread(new)
    if a.shape != b.shape:
        sizes = [f"{image.shape[1]}x{image.shape[0]} pixels" for image in (a, b)]
        return f"found {sizes[0]}, the record gives {sizes[1]}"
    changed_HW = (a != b).any(axis=-1)
    if not changed_HW.any():
        return "other bytes with the same content"
    return f"{changed_HW.sum()} of {changed_HW.size} pixels differ"


def verify_paper(
    paper: Paper, smoke: bool, lab: Lab, rendered: Path | None = None, record: Path | None = None
) -> None:
    """Render a paper again and compare it with the files of a folder.

    The runs are the lab's, or those of an archive (`record`), which needs no scenes and no store.
    Figures whose data archives do not hold must exist; they are listed as not checked. Raises
    `UserError` that names every difference.
    """
    name = study_name(paper.path, smoke)
    folder = rendered or paper.path.parent / "rendered" / name
    if not folder.is_dir():
        command = f"{paper.path}{' --smoke' if smoke else ''}"
        raise UserError(
            f"{folder}: no such folder of rendered tables and figures; make them with mhiflab "
            f"table {command} and mhiflab figure {command}, then copy {lab.rendered(name)} there "
            "or name that with --rendered"
        )
    with (
        TemporaryDirectory(prefix="mhiflab-") as fresh,
        opened_plans(paper, smoke, lab, record) as plans,
    ):
        files, failed = render_parts(plans, Path(fresh), paper.parts, quiet=True)
        skipped = [one for one, error in failed.items() if isinstance(error, NotArchivedError)]
        raise_failures(paper, {one: e for one, e in failed.items() if one not in skipped})
        unchecked = {one + end for one in skipped for end in paper.parts[one].ENDS}
        problems = differences(folder, Path(fresh), leave=unchecked)
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
