"""Formats of a table: Markdown, LaTeX, HTML and CSV, with a sidecar JSON."""

import html
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from feinfn.files import write_bytes
from mhiflab.render.metrics import METRICS
from mhiflab.render.statistics.verdicts import statistics
from mhiflab.render.tables.published import NOT_TOLD, QuotedRow
from mhiflab.render.tables.rows import COSTS, Row, number_text, ranks
from mhiflab.render.tables.table import Block, Table, notes, sidecar, summary, verdicts

Escape = Callable[[str], str]
"""A function that escapes a text for a format."""


@dataclass(frozen=True)
class Mark:
    """Marks of a format: emphasis, signs, arrows and daggers."""

    bold: tuple[str, str]
    underline: tuple[str, str]
    plus_minus: str
    up: str
    down: str
    dagger: str
    counted: str


MARKDOWN = Mark(("**", "**"), ("<u>", "</u>"), " ± ", "↑", "↓", "†", "‡")
HTML = replace(MARKDOWN, bold=("<b>", "</b>"))
LATEX = Mark(
    (r"\textbf{", "}"),
    (r"\underline{", "}"),
    r" $\pm$ ",
    r"$\uparrow$",
    r"$\downarrow$",
    r"$^\dagger$",
    r"$^\ddagger$",
)


def _header(table: Table, mark: Mark) -> list[str]:
    arrows = [mark.up if METRICS[m].higher_is_better else mark.down for m in table.metrics]
    heads = [
        f"{METRICS[m].heading} {arrow}" for m, arrow in zip(table.metrics, arrows, strict=True)
    ]
    return ["Method", *heads, *(COSTS[name].heading for name in table.costs)]


def _line(row: Row, rank: dict[str, str], table: Table, mark: Mark) -> list[str]:
    emphasis = {"best": mark.bold, "second": mark.underline}
    cells = []
    for metric in table.metrics:
        if not row.cells:
            cells.append(NOT_TOLD)
            continue
        cell, digits = row.cells[metric], METRICS[metric].digits
        text = number_text(cell.mean, digits)
        if rank[metric]:
            text = text.join(emphasis[rank[metric]])
        if cell.over_seeds is not None:
            text += f"{mark.plus_minus}{cell.over_seeds:.{digits}f}"
        if cell.over_images is not None:
            text += f" ({cell.over_images:.{digits}f})"
        cells.append(text)
    for name in table.costs:
        column = COSTS[name]
        cost = row.costs.get(name)
        cells.append(NOT_TOLD if cost is None else f"{cost / column.unit:.{column.digits}f}")
    return cells


def _lines(table: Table, block: Block, mark: Mark, escaped: Escape) -> list[list[str]]:
    block_rows = block.rows
    ranks_of = {metric: ranks(block_rows, metric) for metric in table.metrics}
    return [
        [
            escaped(row.label) + (mark.dagger if row.lacking else ""),
            *_line(
                row, {metric: ranking[place] for metric, ranking in ranks_of.items()}, table, mark
            ),
        ]
        for place, row in enumerate(block_rows)
    ]


def _quoted_title(block: Block) -> str:
    return f"{block.title}, published" if block.title else "Published"


def _quoted_line(row: QuotedRow, table: Table, mark: Mark, escaped: Escape) -> list[str]:
    cells = []
    for metric in table.metrics:
        value, spread = row.values.get(metric), row.spreads.get(metric)
        text = NOT_TOLD if value is None else value
        cells.append(text if spread is None else f"{text} ({spread})")
    parameters = row.parameters if row.parameters == NOT_TOLD else row.parameters + mark.counted
    cells += [parameters if name == "parameters" else NOT_TOLD for name in table.costs]
    return [escaped(f"{row.method} [{row.source}]"), *cells]


_MARKUP = re.compile(
    r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)|<(?=[A-Za-z/!?])|^[>+-]|(?<!\S)#|&(?=#?\w+;)", re.ASCII
)
"""Characters that are markup in Markdown; snake_case and `a < b` are plain text."""


def _md(text: str) -> str:
    return re.sub(r"^(\d+)([.)])(?=\s)", r"\1\\\2", _MARKUP.sub(r"\\\g<0>", text))


def markdown(table: Table) -> str:
    """Return the table as Markdown."""
    header = _header(table, MARKDOWN)
    body = [header, ["---", *["---:"] * (len(header) - 1)]]

    def section(title: str) -> list[str]:
        return [f"*{_md(title)}*", *[""] * (len(header) - 1)]

    for block in table.blocks:
        body += [section(block.title)] if block.title else []
        body += _lines(table, block, MARKDOWN, _md)
        body += [section(_quoted_title(block))] if block.quoted else []
        body += [_quoted_line(one, table, MARKDOWN, _md) for one in block.quoted]
    text = "\n".join("| " + " | ".join(line) + " |" for line in body)
    sentences = verdicts(table)
    parts = [f"### {_md(table.title)}", text]
    parts += ["\n".join(f"- {_md(line)}" for line in sentences)] if sentences else []
    parts.append("  \n".join(map(_md, notes(table))))
    return "\n\n".join(parts) + "\n"


def _tex(text: str) -> str:
    table: dict[str, str | int | None] = {c: f"\\{c}" for c in "&%$#_{}"}
    table |= {"\\": r"\textbackslash{}", "~": r"\~{}", "^": r"\^{}"}
    table |= {"±": r"$\pm$", "†": r"$^\dagger$", "‡": r"$^\ddagger$"}
    table |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
    # After a row's end or a rule, LaTeX would read a star or bracket as an option.
    first = "{}" if text.lstrip().startswith(("[", "*")) else ""
    return first + text.translate(str.maketrans(table))


def latex(table: Table) -> str:
    """Return the table as LaTeX (needs the booktabs package)."""
    heads = [head.replace("_", r"\_") for head in _header(table, LATEX)]
    wide = len(heads)

    def body(lines: list[list[str]]) -> list[str]:
        return [" & ".join(line) + r" \\" for line in lines]

    def section(title: str) -> str:
        return rf"\multicolumn{{{wide}}}{{l}}{{\emph{{{_tex(title)}}}}} \\"

    parts = []
    for block in table.blocks:
        title = [section(block.title)] if block.title else []
        parts.append("\n".join(title + body(_lines(table, block, LATEX, _tex))))
        if block.quoted:
            lines = [_quoted_line(one, table, LATEX, _tex) for one in block.quoted]
            parts.append("\n".join([section(_quoted_title(block)), *body(lines)]))
    sentences = "\n".join((*verdicts(table), *notes(table)))
    comments = "\n".join(f"% {line}" for line in sentences.splitlines())
    rows_text = "\n\\midrule\n".join(parts)
    return (
        f"{comments}\n\\begin{{table}}\n\\centering\n\\caption{{{_tex(table.title)}}}\n"
        f"\\begin{{tabular}}{{l{'r' * (wide - 1)}}}\n\\toprule\n{' & '.join(heads)} \\\\\n"
        f"\\midrule\n{rows_text}\n\\bottomrule\n\\end{{tabular}}\n\\end{{table}}\n"
    )


def html_table(table: Table) -> str:
    """Return the table as an HTML fragment: a <table>, verdicts and notes."""
    heads = _header(table, HTML)

    def line(cells: list[str]) -> str:
        first = f'<th scope="row">{cells[0]}</th>'
        return f"<tr>{first}{''.join(f'<td>{cell}</td>' for cell in cells[1:])}</tr>"

    def section(title: str) -> str:
        return f'<tr class="section"><th colspan="{len(heads)}">{html.escape(title)}</th></tr>'

    parts = ["<table>", f"<caption>{html.escape(table.title)}</caption>", "<thead><tr>"]
    parts += [f'<th scope="col">{html.escape(head)}</th>' for head in heads]
    parts += ["</tr></thead>", "<tbody>"]
    for block in table.blocks:
        parts += [section(block.title)] if block.title else []
        parts += [line(cells) for cells in _lines(table, block, HTML, html.escape)]
        parts += [section(_quoted_title(block))] if block.quoted else []
        parts += [line(_quoted_line(one, table, HTML, html.escape)) for one in block.quoted]
    parts += ["</tbody>", "</table>"]
    for name, lines in (("verdicts", verdicts(table)), ("notes", notes(table))):
        if lines:
            parts.append(f'<ul class="{name}">')
            parts += [f"<li>{html.escape(text)}</li>" for text in lines]
            parts.append("</ul>")
    return "\n".join(parts) + "\n"


def html_page(table: Table) -> str:
    """Return the table as a complete HTML page."""
    style = (
        "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}"
        "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
        "caption{text-align:left;font-weight:600;padding:.5rem 0}"
        "th,td{padding:.3rem .7rem;text-align:right;white-space:nowrap}"
        "th:first-child{text-align:left;font-weight:400}"
        "thead th{border-block:1.5px solid;font-weight:600}"
        "tbody{border-bottom:1.5px solid}.section th{font-style:italic;border-top:1px solid}"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{html.escape(table.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        f"{html_table(table)}</body>\n</html>\n"
    )


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
        f"{stem}.md": markdown(table),
        f"{stem}.tex": latex(table),
        f"{stem}.csv": _csv(summary(table)),
        f"{stem}.html": html_page(table),
        f"{stem}.json": json.dumps(sidecar(table), indent=1, ensure_ascii=False) + "\n",
    }
    frames = []
    for block in table.blocks:
        frame = statistics(block.comparisons)
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
