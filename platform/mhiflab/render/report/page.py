"""Page of a report: one HTML file with all it needs; the same records give the same bytes."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from feinfn.errors import UserError
from mhiflab.plan.plan import Plan
from mhiflab.plan.show import counts_line, reasons
from mhiflab.render.report.drawings import draw_figures, too_large_note
from mhiflab.render.report.origin import differences, origin
from mhiflab.render.report.sections import (
    image_grid,
    result_grid,
    state_grid,
    statistics,
    with_distinct_labels,
)
from mhiflab.render.report.windows import read_windows, viewer_data
from mhiflab.render.runs import Results, collect

PAGE_BYTES = 15_000_000
"""Largest size of a page. To stay below, it leaves out the numbers of images, then the last
figures, then pixels and cases of the viewer, then the viewer, with notes in their place. Tables of
runs always stay."""

SCRIPTS = ("tables.js", "viewer.js")
"""Scripts inside a page."""


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, scripts: list[str]) -> str:
    """Return a content security policy that allows no requests and only this page's code."""

    def sources(texts: list[str]) -> str:
        hashes = [base64.b64encode(hashlib.sha256(t.encode()).digest()).decode() for t in texts]
        return " ".join(f"'sha256-{one}'" for one in hashes)

    return (
        f"default-src 'none'; img-src data:; style-src {sources([style])}; "
        f"script-src {sources(scripts)}; base-uri 'none'; form-action 'none'"
    )


def _render(studies: Sequence[dict[str, Any]], title: str = "") -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style, scripts = _asset("page.css"), [_asset(name) for name in SCRIPTS]
    code = {"style": Markup(style), "scripts": [Markup(one) for one in scripts]}  # noqa: S704
    page = environment.from_string(_asset("page.html"))
    return page.render(
        studies=studies,
        title=title or studies[0]["plan"].study.title,
        **code,
        policy=_policy(style, scripts),
    )


def report_page(plans: Sequence[Plan], title: str = "", page_bytes: int = PAGE_BYTES) -> str:
    """Return a page on studies, each with an equal share of the size.

    An unfinished study shows what is recorded and missing. The viewer shows the first study that
    has something to look into. Raises `UserError` if the store cannot be read.
    """
    studies: list[dict[str, Any]] = []
    for plan in plans:
        looked_into = any(study["viewer"] for study in studies)
        studies.append(_study_values(plan, page_bytes // len(plans), not looked_into))
    return _render(studies, title)


def _study_values(plan: Plan, page_bytes: int, with_viewer: bool) -> dict[str, Any]:
    """Return the template's values of a study, whose page alone is not larger than allowed."""
    plan = with_distinct_labels(plan)
    done = replace(plan, entries=plan.finished)
    results, problem = _results(done)
    shared, runs = origin(plan)
    windows = read_windows(plan)
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
        values["figures"], values["not_drawn"] = draw_figures(done, plan)
    # Leave room for the note on a missing viewer.
    while values["figures"] and _size(values) > page_bytes - 1000:
        values["not_drawn"].insert(0, too_large_note(values["figures"].pop(), done))
    if windows.fused_SHW and not with_viewer:
        windows.notes.append(f"A page of its own shows them: mhiflab report {plan.command}")
    elif windows.fused_SHW:
        notes = list(windows.notes)
        # Leave room for the viewer's notes.
        values["viewer"] = viewer_data(windows, page_bytes - _size(values) - 20_000)
        if _size(values) > page_bytes:
            values["viewer"] = None
            windows.notes[:] = [*notes, "The viewer is left out: the page would grow too large."]
    return values


def _size(values: dict[str, Any]) -> int:
    return len(_render([values]).encode())


def _results(done: Plan) -> tuple[Results | None, str]:
    """Return the finished runs' numbers, or the reason why one table cannot hold them."""
    if not done.entries:
        return None, "No run is finished yet."
    try:
        return collect(done), ""
    except UserError as error:
        return None, str(error)
