"""A study's report: one HTML file with all it needs inside, the same bytes for the same records."""

import base64
import hashlib
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from feinfn.errors import UserError
from mhiflab.plan.plan import Plan
from mhiflab.plan.show import counts_line, reasons
from mhiflab.record.store import Store
from mhiflab.render.report.drawings import draw_figures, too_large
from mhiflab.render.report.origin import differences, origin
from mhiflab.render.report.sections import (
    image_grid,
    result_grid,
    state_grid,
    statistics,
    with_distinct_labels,
)
from mhiflab.render.report.windows import read_windows, viewer_data
from mhiflab.render.runs import RecordedStudy, Results, collect

PAGE_BYTES = 15_000_000
"""No page grows larger, unless its tables of runs alone do: every image's numbers are left out,
then the last figures, pixels and cases of the viewer, all of it; notes say so in their place."""

SCRIPTS = ("tables.js", "viewer.js")


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, scripts: list[str]) -> str:
    """Return a policy that lets nothing be fetched, and nothing run but this page's own code."""

    def sources(texts: list[str]) -> str:
        hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        return " ".join(f"'sha256-{one}'" for one in hashes)

    return (
        f"default-src 'none'; img-src data:; style-src {sources([style])}; "
        f"script-src {sources(scripts)}; base-uri 'none'; form-action 'none'"
    )


def _render(values: dict[str, Any]) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, scripts = _asset("page.css"), [_asset(name) for name in SCRIPTS]
    code = {"style": Markup(style), "scripts": [Markup(one) for one in scripts]}  # noqa: S704
    page = environment.from_string(_asset("page.html"))
    return page.render(**values, **code, policy=_policy(style, scripts))


def report_page(plan: Plan, store: Store, page_bytes: int = PAGE_BYTES) -> str:
    """Return a study's page; of an unfinished one, what is on record and what is missing.

    Raises `UserError` where the store cannot be read.
    """
    plan = with_distinct_labels(plan)
    done = plan.finished
    results, problem = _results(done, store)
    shared, runs = origin(plan, store)
    recorded = RecordedStudy(done, store)
    windows = read_windows(recorded)
    values: dict[str, Any] = {
        "plan": plan,
        "done": done,
        "state": state_grid(plan),
        "state_notes": [
            *(f"{one.base.case}: {one.line()}" for one in plan.searches),
            *reasons(plan),
            f"{counts_line(plan)}.",
        ],
        "problem": problem,
        "results": results,
        "table": results and result_grid(plan, results),
        "statistics": results and statistics(results, plan.study.baseline or ""),
        "images": results and image_grid(results),
        "figures": [],
        "not_drawn": [],
        "shared": shared,
        "runs": runs,
        "differences": differences(plan),
        "windows": windows,
        "viewer": None,
    }
    if _size(values) > page_bytes:
        values["images"] = None
    if results:
        values["figures"], values["not_drawn"] = draw_figures(recorded, plan)
    # Room for the note that the viewer is left out.
    while values["figures"] and _size(values) > page_bytes - 1000:
        values["not_drawn"].insert(0, too_large(values["figures"].pop(), done))
    if windows.fused_SHW:
        notes = list(windows.notes)
        # Room for the notes on what is left out.
        values["viewer"] = viewer_data(windows, page_bytes - _size(values) - 20_000)
        if _size(values) > page_bytes:
            values["viewer"] = None
            windows.notes[:] = [*notes, "The viewer is left out: the page would grow too large."]
    return _render(values)


def _size(values: dict[str, Any]) -> int:
    return len(_render(values).encode())


def _results(done: Plan, store: Store) -> tuple[Results | None, str]:
    """Return the finished runs' numbers, or why one table cannot hold them."""
    if not done.entries:
        return None, "No run is finished yet."
    try:
        return collect(done, store), ""
    except UserError as error:
        return None, str(error)
