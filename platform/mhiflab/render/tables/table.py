"""Tables, made from recorded runs alone; the same runs give the same bytes."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from feinfn.metrics.label import LABELS
from mhiflab.grid import Cell, Grid
from mhiflab.render.runs import Results
from mhiflab.render.statistics.comparison import Comparison
from mhiflab.render.statistics.verdicts import compare_cases, progress, sentences
from mhiflab.render.tables.published import COUNTED_RATIO, NOT_TOLD, QuotedRow
from mhiflab.render.tables.rows import Row, rows


@dataclass(frozen=True)
class Block:
    """The rows of one study: one protocol, one set of test images, one convention."""

    results: Results
    title: str = ""
    """Heading over the rows if a table has several blocks."""
    quoted: tuple[QuotedRow, ...] = ()
    """Published numbers below the rows."""
    costs: tuple[str, ...] = ()
    """Names in `rows.COSTS` of the columns of costs."""

    @cached_property
    def rows(self) -> list[Row]:
        """Rows of the methods, after the upsampled LR-HSI."""
        return rows(self.results, self.costs)

    @cached_property
    def compared(self) -> tuple[list[Comparison], str]:
        """Comparisons with the baseline, bootstrapped once for all formats; why there are none."""
        return compare_cases(self.results)


@dataclass(frozen=True)
class Table:
    """A table to print: blocks of rows with a title, and the same columns."""

    title: str
    blocks: tuple[Block, ...]

    @property
    def costs(self) -> tuple[str, ...]:
        """Columns of costs of the first block."""
        return self.blocks[0].costs

    @property
    def metrics(self) -> list[str]:
        """Metrics of the first block."""
        return self.blocks[0].results.metrics


def _seeds(seeds: Iterable[str]) -> str:
    """Return seeds in words; the empty seed of methods without training does not count."""
    numbers = sorted({int(seed) for seed in seeds if seed})
    words = f"seed{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}"
    return words if numbers else ""


def notes(table: Table) -> list[str]:
    """Return the notes that a reader needs to read the numbers, one sentence each."""
    lines = ["Mean over test images and seeds ± standard deviation over seeds (over images)."]
    if any(block.results.plan.smoke for block in table.blocks):
        lines.append(
            "Smoke form: everything is small, and the images are those of the embedded sample, "
            "whatever a title names. Nothing here can be compared with published values."
        )
    for block in table.blocks:
        results = block.results
        prefix = f"{block.title}: " if block.title else ""
        seeds = _seeds(seed for row in block.rows for seed in row.runs) or "no seeds"
        keys = " ".join(dict.fromkeys(entry.key[:12] for entry in results.plan.finished))
        lines += [
            f"{prefix}protocol {results.protocol.name}; metric convention {results.convention}; "
            f"{seeds}; test images {', '.join(results.scenes)}.",
            f"{prefix}runs {keys}.",
        ]
        for row in block.rows:
            if row.runs_lacking:
                finished_seeds = _seeds(row.runs)
                lines.append(
                    f"† {prefix}{row.method} lacks {row.runs_lacking} of its runs"
                    f"{f' (it has {finished_seeds})' if finished_seeds else ''} and is marked "
                    "neither best nor second."
                )
        if reason := block.compared[1]:
            lines.append(f"{prefix}not compared: {reason}.")
    if "flops" in table.costs:
        lines.append(
            "GFLOP: matrix products and convolutions, two operations per multiply-add; Fourier "
            "transforms and element-wise work are left out."
        )
    if "seconds" in table.costs or "memory" in table.costs:
        lines.append("Time and memory as the runs measured them while fusing their test images.")
    quoted = [one for block in table.blocks for one in block.quoted]
    if quoted:
        lines.append(
            "Published values are quoted; they were not computed here, and protocols and metric "
            "definitions differ."
        )
        sources = dict.fromkeys((one.source, one.about) for one in quoted)
        lines += [f"[{name}] {about}." for name, about in sources]
    if "parameters" in table.costs and any(one.parameters != NOT_TOLD for one in quoted):
        lines.append(
            "‡ counted by us on the released code for 31 + 3 bands at ratio "
            f"{COUNTED_RATIO}, not quoted."
        )
    return lines


def verdicts(table: Table) -> list[str]:
    """Return the verdicts that the numbers support, one sentence each."""
    lines = []
    for block in table.blocks:
        prefix = f"{block.title}: " if block.title else ""
        texts = [*progress(block.results), *sentences(block.compared[0])]
        lines += [prefix + text for text in texts]
    return lines


def summary(table: Table) -> pd.DataFrame:
    """Return one row per method: means, and standard deviations over seeds and over images.

    `<metric>_std` is over seeds, `<metric>_images_std` over images; a deviation of fewer than two
    values is empty.
    """
    lines = []
    for block in table.blocks:
        for row in block.rows:
            line: dict[str, object] = {"block": block.title} if block.title else {}
            trained = [seed for seed in row.runs if seed]
            line |= {"method": row.method, "seeds": len(trained)}
            for metric in table.metrics:
                cell = row.values.get(metric)
                line[f"{metric}_mean"] = cell.mean if cell else None
                line[f"{metric}_std"] = cell.std_over_seeds if cell else None
                line[f"{metric}_images_std"] = cell.std_over_images if cell else None
            line |= {name: row.costs.get(name) for name in table.costs}
            line |= {"form": "smoke"} if block.results.plan.smoke else {}
            lines.append(line)
    return pd.DataFrame(lines)


def sidecar(table: Table) -> dict[str, Any]:
    """Return the sources of every number: runs, images, convention and protocol.

    A mean that is not finite is None, because JSON has no such number.
    """
    blocks = []
    for block in table.blocks:
        results = block.results
        listed = [
            asdict(row) | {"costs": {x: row.costs[x] for x in table.costs if x in row.costs}}
            for row in block.rows
        ]
        fingerprints = {e.survey.fingerprint for e in results.plan.finished}
        blocks.append(
            {
                "title": block.title,
                "study": results.plan.name,
                "convention": results.convention,
                "protocol": {"name": results.protocol.name, "hash": results.protocol.hash()},
                "data_fingerprints": sorted(fingerprints),
                "images": results.scenes,
                "rows": listed,
                "quoted": [asdict(one) for one in block.quoted],
            }
        )
    return _finite({"title": table.title, "blocks": blocks, "verdicts": verdicts(table)})


def _finite(value: Any) -> Any:
    """Return a value with None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def frame_grid(frame: pd.DataFrame, title: str) -> Grid:
    """Return a data frame as a grid, metrics with their usual decimals."""

    def cell(column: str, value: Any) -> Cell:
        if not isinstance(value, float):
            return Cell(str(value))
        digits = f".{LABELS[column].digits}f" if column in LABELS else "g"
        return Cell(f"{value:{digits}}", value=value)

    heads = [LABELS[name].heading if name in LABELS else name for name in frame.columns]
    rows = [
        [cell(str(name), value) for name, value in row.items()] for row in frame.to_dict("records")
    ]
    return Grid(heads, rows, title)


def study_table(results: Results) -> Table:
    """Return the table of one study."""
    return Table(results.plan.study.title, (Block(results),))
