"""Tables in every format: on the console, as Markdown, LaTeX, HTML and CSV with a sidecar JSON."""

import json
import math
from pathlib import Path

import pandas as pd
from rich.markup import escape

from feinfn.files import write_bytes
from feinfn.metrics.label import LABELS, headings
from mhiflab.console import out
from mhiflab.grid import Cell, Grid
from mhiflab.render.pages import fill
from mhiflab.render.statistics.verdicts import statistics
from mhiflab.render.tables.published import NOT_TOLD, QuotedRow
from mhiflab.render.tables.rows import COSTS, Row, ranks
from mhiflab.render.tables.table import Table, notes, sidecar, summary, verdicts


def table_grid(table: Table) -> Grid:
    """Return the rows of all blocks, with marks for the best and second values of each."""
    lines: list[list[Cell] | str] = []
    for block in table.blocks:
        lines += [block.title] if block.title else []
        marks = {metric: ranks(block.rows, metric) for metric in table.metrics}
        lines += [
            _line(row, {metric: marks[metric][place] for metric in table.metrics}, table)
            for place, row in enumerate(block.rows)
        ]
        if block.quoted:
            lines.append(f"{block.title}, published" if block.title else "Published")
            lines += [_quoted_line(row, table) for row in block.quoted]
    costs = [COSTS[name].heading for name in table.costs]
    return Grid(["Method", *headings(table.metrics), *costs], lines, table.title)


def _line(row: Row, marks: dict[str, str], table: Table) -> list[Cell]:
    line = [Cell(row.method + "†" * bool(row.runs_lacking))]
    for metric in table.metrics:
        if not row.values:
            line.append(Cell(NOT_TOLD))
            continue
        cell, digits = row.values[metric], LABELS[metric].digits
        over_seeds, over_images = cell.std_over_seeds, cell.std_over_images
        spreads = [] if over_seeds is None else [f"± {over_seeds:.{digits}f}"]
        spreads += [] if over_images is None else [f"({over_images:.{digits}f})"]
        text = NOT_TOLD if math.isnan(cell.mean) else f"{cell.mean:.{digits}f}"
        line.append(Cell(text, marks[metric], " ".join(spreads), cell.mean))
    for name in table.costs:
        column, cost = COSTS[name], row.costs.get(name)
        text = NOT_TOLD if cost is None else f"{cost / column.unit:.{column.digits}f}"
        line.append(Cell(text, value=cost))
    return line


def _quoted_line(row: QuotedRow, table: Table) -> list[Cell]:
    line = [Cell(f"{row.method} [{row.source}]")]
    for metric in table.metrics:
        spread = f"({row.spreads[metric]})" if metric in row.spreads else ""
        line.append(Cell(row.values.get(metric, NOT_TOLD), below=spread))
    counted = row.parameters if row.parameters == NOT_TOLD else f"{row.parameters}‡"
    return line + [Cell(counted if name == "parameters" else NOT_TOLD) for name in table.costs]


def formatted(table: Table, suffix: str) -> str:
    """Return a table with its verdicts and notes as Markdown, LaTeX or HTML (.md, .tex, .html)."""
    said = {"verdicts": verdicts(table), "notes": notes(table)}
    return fill(f"table{suffix}", grid=table_grid(table), **said)


def print_table(table: Table) -> None:
    """Print a table with its verdicts and notes."""
    out.print(table_grid(table), "", sep="\n")
    for text in verdicts(table):
        out.print(f"• {escape(text)}")
    for text in notes(table):
        out.print(escape(text))


def _csv(frame: pd.DataFrame) -> str:
    """Return a table as CSV, with an apostrophe before names that look like formulas."""
    for column in {"block", "method", "baseline"} & set(frame.columns):
        names = [f"'{x}" if x.startswith(("=", "+", "-", "@")) else x for x in frame[column]]
        frame = frame.assign(**{column: names})
    return frame.to_csv(index=False, lineterminator="\n")


def write_table(table: Table, folder: Path, stem: str) -> list[Path]:
    """Write .md, .tex, .csv, .html, the sidecar .json and any statistics; return the paths.

    If there are no statistics now, those of an earlier table are removed.
    """
    texts = {
        f"{stem}.md": formatted(table, ".md"),
        f"{stem}.tex": formatted(table, ".tex"),
        f"{stem}.csv": _csv(summary(table)),
        f"{stem}.html": formatted(table, ".html"),
        f"{stem}.json": json.dumps(sidecar(table), indent=1, ensure_ascii=False) + "\n",
    }
    frames = []
    for block in table.blocks:
        frame = statistics(block.compared[0])
        if len(frame):
            frames.append(frame.assign(block=block.title) if block.title else frame)
    if frames:
        texts[f"{stem}-statistics.csv"] = _csv(pd.concat(frames, ignore_index=True))
    # Encode all before the first write, so that an error leaves the earlier table whole.
    contents = {folder / name: text.encode() for name, text in texts.items()}
    for path, content in contents.items():
        write_bytes(path, content)
    if not frames:
        (folder / f"{stem}-statistics.csv").unlink(missing_ok=True)
    return list(contents)
