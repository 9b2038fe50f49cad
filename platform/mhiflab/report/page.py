"""A study's report: one HTML file with all it needs inside, the same bytes for the same records."""

import base64
import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from feinfn.errors import UserError
from mhiflab.figures.registry import draw
from mhiflab.plan import Plan, counts_line, reasons
from mhiflab.recorded import Recorded
from mhiflab.report.origin import differences, origin
from mhiflab.report.sections import (
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
FIGURES_BYTES = 7_000_000
"""What a page's figures may take of it; those after it are named with their command."""
DOTS_PER_CSS_PX = 2
FIGURES: Sequence[tuple[str, str, dict[str, Any], str]] = (
    (
        *("Fused images", "fused", {}),
        "The first test image, a part of it enlarged, and absolute errors averaged over bands, all "
        "on one scale.",
    ),
    ("Spectral angles", "errors", {"map": "sam"}, "The same image, all on one scale."),
    ("Spectra", "spectra", {}, "Chosen pixels of the same image against the reference."),
    ("Training", "curves", {}, "Validation PSNR over optimiser steps."),
    ("Training time", "curves", {"over": "minutes"}, "The same over minutes of training alone."),
    ("Cost", "cost", {}, "Test PSNR against the number of parameters."),
    ("Latent codes", "latent", {}, "Amplitude and phase of the codes of HR-HSI and LR-HSI."),
    ("Gabor wavelet", "gabor", {}, "A decoder's activation in time and frequency."),
    ("Frequency response", "response", {}, "What the decoders' features hold of each frequency."),
    ("Local change", "change", {}, "What one changed frequency does to the whole image."),
)
"""Title, kind, options and caption of every figure of a page."""


@dataclass(frozen=True)
class Picture:
    """A figure of the page."""

    title: str
    png: bytes
    caption: str

    @property
    def source(self) -> str:
        """The picture as an address that holds it."""
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"

    @property
    def width(self) -> int:
        """CSS pixels at which letters of all figures are of one size, that of the page's notes."""
        # The first number of a PNG's header.
        return round(int.from_bytes(self.png[16:20], "big") / DOTS_PER_CSS_PX)


def figures(done: Plan, store: Store) -> tuple[list[Picture], list[str]]:
    """Draw what the record of some finished trials holds; say what cannot be drawn, and why."""
    recorded, drawn, left, size = Recorded(done, store), [], [], 0
    with tempfile.TemporaryDirectory(prefix="mhiflab-") as folder:
        for title, kind, options, caption in FIGURES:
            try:
                png = draw(kind, options, recorded, Path(folder), kind, ("png",))[0].read_bytes()
            except UserError as error:
                left.append(f"{title}: {error}")
                continue
            if size + len(png) > FIGURES_BYTES:
                left.append(
                    f"{title}: the page would grow too large; draw it by itself: mhiflab figure "
                    f"{done.command} --kind {kind}"
                )
                continue
            size += len(png)
            drawn.append(Picture(title, png, caption))
    return drawn, left


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
    done = plan.finished
    results, problem = _results(done, store)
    shared, runs = origin(plan, store)
    windows = read_windows(done, store)
    pictures, left = figures(done, store) if results else ([], [])
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
        "figures": pictures,
        "not_drawn": left,
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
