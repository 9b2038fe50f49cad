"""Origin of a report's numbers: facts that all runs share, and facts in which they differ."""

from dataclasses import asdict
from datetime import UTC, datetime

from mhiflab.grid import Cell, Grid
from mhiflab.plan.plan import Finished, Plan
from mhiflab.record import tag
from mhiflab.render.compare import difference_grid
from mhiflab.study.settings import flatten


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
    facts_of_runs = list(facts.values())
    names = dict.fromkeys(name for one in facts_of_runs for name in one)
    values = {name: [one.get(name, "not recorded") for one in facts_of_runs] for name in names}
    shared = {name: texts[0] for name, texts in values.items() if len(set(texts)) == 1}
    differing = [name for name in names if name not in shared]
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
