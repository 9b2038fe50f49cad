"""A study's report: one HTML file with all it needs inside, the same bytes for the same records."""

import base64
import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from feinfn.errors import UserError
from mhiflab.figures.beside_tables import curve_figure, error_figure
from mhiflab.plan import Plan, counts_line, reasons
from mhiflab.report.origin import differences, origin
from mhiflab.report.sections import (
    finished,
    image_grid,
    result_grid,
    state_grid,
    statistics,
    told_apart,
)
from mhiflab.report.windows import read_windows, viewer_data
from mhiflab.results import Results, collect
from mhiflab.tracking import Store

PAGE_BYTES = 15_000_000
"""No page grows larger; its viewer shows less then."""
SCRIPTS = ("tables.js", "viewer.js")
ERRORS = (
    "The first test image: pseudo-RGB above, absolute error averaged over bands below, all on one "
    "scale."
)
CURVES = "Validation PSNR over epochs and over training time, one line a run."


@dataclass(frozen=True)
class Drawn:
    """A figure of the page, or why it could not be drawn."""

    title: str
    png: bytes
    caption: str

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def _draw(title: str, caption: str, draw: Callable[[Path], Path]) -> Drawn:
    with tempfile.TemporaryDirectory(prefix="mhiflab-") as folder:
        try:
            return Drawn(title, draw(Path(folder) / "figure.png").read_bytes(), caption)
        except UserError as error:
            return Drawn(title, b"", f"Not drawn: {error}")


def figures(done: Plan, results: Results, store: Store) -> list[Drawn]:
    """Draw what the record of some finished trials holds."""
    seed = done.study.seeds[0]
    first = replace(done, entries=tuple(e for e in done.entries if e.trial.spec.seed == seed))
    drawn = []
    if first.entries:
        drawn.append(_draw("Errors", ERRORS, lambda p: error_figure(first, results, store, p)))
    return [*drawn, _draw("Training", CURVES, lambda p: curve_figure(done, store, p))]


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


def report(plan: Plan, store: Store, page_bytes: int = PAGE_BYTES) -> str:
    """Return a study's page; of an unfinished one, what is on record and what is missing.

    Raises `UserError` where the store cannot be read.
    """
    plan = told_apart(plan)
    done = finished(plan)
    results, problem = _results(done, store)
    shared, runs = origin(plan, store)
    windows = read_windows(done, store)
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
        "statistics": results and statistics(results),
        "images": results and image_grid(results),
        "figures": figures(done, results, store) if results else [],
        "shared": shared,
        "runs": runs,
        "differences": differences(plan),
        "windows": windows,
        "viewer": None,
    }
    if windows.fused_SHW:
        # Room for the notes on what is left out.
        room = page_bytes - len(_render(values).encode()) - 20_000
        values["viewer"] = viewer_data(windows, room)
    return _render(values)


def _results(done: Plan, store: Store) -> tuple[Results | None, str]:
    """Return the finished runs' numbers, or why one table cannot hold them."""
    if not done.entries:
        return None, "No run is finished yet."
    try:
        return collect(done, store), ""
    except UserError as error:
        return None, str(error)
