"""Parts of a run: the one format of its journal, its archive, and its upload.

A journal holds one part a line; an archive holds a whole run as a single part.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from feinfn.fields import Settings


@dataclass(frozen=True, kw_only=True)
class Part(Settings):
    """Some of what a run records; parts add up, and one that comes twice changes nothing."""

    name: str | None = None
    """Name of a new run; such a part comes first, and its tags are those of a new run."""
    started_ms: int | None = None
    """Start of a new run, in milliseconds since 1970."""
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    """Steps and values by metric."""
    datasets: dict[str, dict[str, str]] = field(default_factory=dict)
    """Fields of MLflow's data sets by context."""
    files: dict[str, str] = field(default_factory=dict)
    """Texts by artifact."""
    copies: dict[str, str] = field(default_factory=dict)
    """Other files by artifact: their places in the run's folder."""
    status: str | None = None
    """Status of a run that ends with this part."""
    ended_ms: int | None = None

    def plain(self) -> dict[str, Any]:
        """Return the fields that hold something, as plain values."""
        return {key: value for key, value in asdict(self).items() if value not in (None, {})}


def read_part(entry: Mapping[str, Any]) -> Part:
    """Return a part from a line of a journal; raise `TypeError` or `KeyError` if it is none."""
    return _earlier_part(**entry) if "op" in entry else Part(**entry)


def _earlier_part(op: str, **entry: Any) -> Part:
    """Return a part from a line as earlier versions wrote it."""
    if op == "start":
        tags = entry["tags"] | entry["identity"]
        return Part(name=entry["name"], started_ms=entry["ms"], tags=tags)
    if op == "batch":
        step = entry.get("step", 0)
        metrics = {name: [(step, value)] for name, value in entry.get("metrics", {}).items()}
        return Part(metrics=metrics, params=entry.get("params", {}), tags=entry.get("tags", {}))
    if op == "inputs":
        return Part(datasets=entry["datasets"])
    if op == "file":
        artifact = f"{entry['folder']}/{entry['file'].partition('/')[2]}".lstrip("/")
        return Part(copies={artifact: entry["file"]})
    return Part(status=entry["status"], ended_ms=entry["ms"])
