"""Sections of a report: statistics, images, settings and the origin of the numbers."""

import math
from dataclasses import asdict
from datetime import UTC, datetime

import pandas as pd

from feinfn.errors import UserError
from feinfn.metrics.label import LABELS, headings
from mhiflab.grid import Cell, Grid, texts
from mhiflab.plan.plan import Finished, Plan
from mhiflab.record import tag
from mhiflab.render.compare import difference_grid, differing_names
from mhiflab.render.runs import Results
from mhiflab.render.statistics.comparison import compare_methods
from mhiflab.render.statistics.verdicts import TEST_NOTE, baseline_label
from mhiflab.study.settings import flatten

IMAGE_ROWS = 5000
"""Most rows of a page's table of images."""


def image_grid(results: Results, share: float) -> Grid | None:
    """Return the metrics of every image, method and seed, or None beyond a share of `IMAGE_ROWS`.

    The upsampled LR-HSI stands once per image.
    """
    upsampled = results.upsampled().assign(method=results.plan.upsampled_label, seed=math.nan)
    lines = []
    for row in pd.concat([upsampled, results.fused()]).to_dict("records"):
        seed = -1 if pd.isna(row["seed"]) else int(row["seed"])
        line = texts(row["scene"], row["method"])
        line.append(Cell("–" if seed < 0 else str(seed), value=seed))
        line += [Cell(f"{row[m]:.{LABELS[m].digits}f}", value=row[m]) for m in results.metrics]
        lines.append(line)
    head = ["Image", "Method", "Seed", *headings(results.metrics)]
    return Grid(head, lines, names=2) if len(lines) <= share * IMAGE_ROWS else None


def statistics(results: Results) -> tuple[dict[str, list[str]], list[str]]:
    """Compare every case with the baseline on seeds that all cases have.

    Returns verdicts by method, and warnings on their limits.
    """
    fused = results.fused()
    # A method without training is compared with every seed.
    by_case = [set(rows["seed"]) for _, rows in fused.dropna(subset="seed").groupby("case")]
    shared = set.intersection(*by_case) if by_case else set()
    warnings = []
    if unshared := sorted(int(seed) for seed in set().union(*by_case) - shared):
        numbers = ", ".join(map(str, unshared))
        warnings.append(f"Seeds {numbers} are left out: not every case has a finished run of them.")
    methods = list(results.plan.labels.values())
    if len(methods) < 2 or (by_case and not shared):
        reason = (
            "one case with finished runs" if len(methods) < 2 else "no seed that all cases have"
        )
        return {}, [*warnings, f"There is {reason}: nothing to compare."]
    frame = fused[fused["seed"].isin(shared) | fused["seed"].isna()]
    try:
        comparisons = compare_methods(frame, results.metrics, methods, baseline_label(results))
    except UserError as error:
        return {}, [*warnings, f"Not compared: {error}"]
    verdicts: dict[str, list[str]] = {}
    for comparison in comparisons:
        verdicts.setdefault(comparison.method, []).append(comparison.verdict())
        warnings += [text for text in comparison.warnings() if text not in warnings]
    return verdicts, [*warnings, TEST_NOTE]


def _time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _facts(entry: Finished) -> dict[str, str]:
    """Return the facts that a finished run recorded about its code, data and machine."""
    provenance, tags, protocol = entry.run.provenance, entry.run.tags, entry.trial.spec.protocol
    dirty = {True: "yes, see the run's uncommitted.diff", False: "no"}
    facts = {
        "Git commit": provenance.get("git_commit"),
        "Uncommitted changes": dirty.get(provenance.get("git_dirty"), "not known"),  # type: ignore[arg-type]
        "Lock file (SHA-256)": provenance.get("lock_sha256"),
        "Data": entry.trial.spec.data.source,
        "Data fingerprint": tags.get(tag.FINGERPRINT),
        "Protocol": f"{protocol.name}: {protocol.about}",
        "Protocol hash": tags.get("mhiflab.protocol_hash"),
        "Metric convention": tags.get("mhiflab.convention"),
        "Host": provenance.get("host"),
        "System": provenance.get("system"),
        "Device": provenance.get("device"),
        "Threads": provenance.get("threads"),
        "Workers": provenance.get("workers"),
        "Python": provenance.get("python"),
        **provenance.get("versions", {}),
        "Began": _time(entry.run.mlflow.info.start_time),
        "Ended": _time(entry.run.mlflow.info.end_time),
        "Wall time (s)": provenance.get("wall_seconds"),
        "Best epoch": provenance.get("best_epoch"),
        "Parameters": f"{provenance['parameters']:,}" if "parameters" in provenance else None,
        "Warnings": " ".join(provenance.get("warnings", [])) or "none",
    }
    return {name: "not recorded" if x in (None, "") else str(x) for name, x in facts.items()}


def origin(plan: Plan) -> tuple[dict[str, str], Grid]:
    """Return the facts that all finished runs share, and a table of all trials with the others."""
    facts = {e.key: _facts(e) for e in plan.finished}
    differing = differing_names(list(facts.values()))
    first = next(iter(facts.values()), {})
    shared = {name: text for name, text in first.items() if name not in differing}
    rows = []
    for entry in plan.entries:
        run_id = entry.run.id if entry.run else ""
        cells = [Cell(entry.trial.label), Cell(str(entry.trial.spec.seed)), Cell(entry.state)]
        cells += [Cell(entry.key or "–", "key"), Cell(run_id or "–", "key")]
        cells += [Cell(facts.get(entry.key, {}).get(name, "–")) for name in differing]
        rows.append(cells)
    return shared, Grid(["Case", "Seed", "State", "Run key", "MLflow run", *differing], rows)


def settings_grid(plan: Plan) -> Grid:
    """Return a table of the settings in which cases differ, one column per case."""
    settings = {
        e.trial.label: flatten({k: v for k, v in asdict(e.trial.spec).items() if k != "seed"})
        for e in plan.entries
    }
    return difference_grid("Setting", settings)
