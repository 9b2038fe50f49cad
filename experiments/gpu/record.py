"""Record of a session on a GPU: one fact a line, appended as it goes, and a page made of them."""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

FACTS, PAGE = "results.jsonl", "results.md"
"""Files of the facts and of the page."""

NO_DEVICE = 3
"""Exit status of a part on a machine without the device."""

ROWS = 40
"""Most rows of a table; more are thinned out evenly."""


def work_folder(out: Path) -> Path:
    """Return the folder of logs and states, beside the results if that is allowed."""
    beside = out.parent if os.access(out.parent, os.W_OK) else Path(tempfile.gettempdir())
    return beside / f"{out.name}.work"


class Record:
    """Facts of all sessions that share a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / FACTS

    def add(self, part: str, **facts: Any) -> None:
        """Append a fact; it is on the disk before this returns."""
        line = json.dumps({"part": part, "at": round(time.time(), 1), **facts})
        with self.path.open("a", encoding="utf-8") as file:
            # A session that was killed may have left half a line.
            file.write(line + "\n" if self._ends_whole() else f"\n{line}\n")
            file.flush()
            os.fsync(file.fileno())

    def _ends_whole(self) -> bool:
        return not self.path.exists() or self.path.read_bytes()[-1:] in (b"", b"\n")

    def facts(self) -> list[dict[str, Any]]:
        """Return all whole facts in order."""
        facts = []
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    facts.append(json.loads(line))
                except ValueError:
                    continue
        return facts

    def rows(self, part: str) -> dict[str, dict[str, Any]]:
        """Return the newest row of each name of a part."""
        return {x["name"]: x for x in self.facts() if x["part"] == part and "name" in x}

    def ends(self) -> dict[str, dict[str, Any]]:
        """Return how each part ended last."""
        return {x["part"]: x for x in self.facts() if "end" in x}

    def write_page(self) -> None:
        """Write everything for reading."""
        ends = self.ends()
        lines = ["# Results on this device", ""]
        lines += [f"- {row['name']}: {row['value']}" for row in self.rows("machine").values()]
        columns = ("end", "seconds", "summary")
        lines += ["", *table({part: {k: end[k] for k in columns} for part, end in ends.items()})]
        for part, end in ends.items():
            rows = self.rows(part)
            if part == "machine" or not (rows or "error" in end):
                continue
            if part == "tests":
                rows = {name: row for name, row in rows.items() if row["outcome"] != "passed"}
            hidden = ("part", "at", "name")
            shown = {n: {k: v for k, v in r.items() if k not in hidden} for n, r in rows.items()}
            lines += ["", f"## {part}", "", *table(shown)]
            if "error" in end:
                lines += ["", "```", end["error"], "```"]
        (self.folder / PAGE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def table(rows: dict[str, dict[str, Any]]) -> list[str]:
    """Return the lines of a Markdown table with a column for every key."""
    if not rows:
        return []
    columns = list(dict.fromkeys(key for row in rows.values() for key in row))
    names = list(rows)
    step = -(-len(names) // ROWS)
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for name in names[::-1][::step][::-1]:
        cells = [_text(rows[name].get(column, "")) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _text(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) and abs(value) < 1e4 else str(value)
    return " ".join(text.split()).replace("|", "\\|")
