"""Rendering of a study: its table on the console, its tables and figures as files."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rich.markdown import Markdown
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.paths import DEFAULT_LAB, Lab
from mhiflab.plan.plan import Plan
from mhiflab.record.store import Store, tracking_uri, without_passwords
from mhiflab.render.figures.registry import draw_each
from mhiflab.render.figures.training.search import write_searches
from mhiflab.render.runs import collect
from mhiflab.render.tables.formats import markdown, write_table
from mhiflab.render.tables.table import study_table


def render_study(
    plan: Plan,
    store: Store,
    lab: Lab,
    conventions: Sequence[str | None] = (None,),
    costs: Sequence[str] = (),
    partial: bool = False,
) -> None:
    """Print a study's table; write its tables and figures from the runs of a store.

    Raises `UserError` if a run is missing and `partial` is false, or if a search is not complete.
    """
    folder = lab.rendered(plan.name)
    written: list[Path] = []
    if plan.searches:
        written += write_searches(plan, folder)
        if plan.unsearched:
            raise UserError(
                f"{plan.path}: its search is not complete (so far: {written[0]}); continue it "
                f"first: mhiflab run {plan.command}"
            )
    for convention in conventions:
        results = collect(plan, convention, partial)
        table = study_table(results, costs)
        written += write_table(table, folder, f"table{results.suffix}")
        out.print(Markdown(markdown(table)))
    finished = replace(plan, entries=plan.finished)
    drawn, undrawn = draw_each(("fused", "curves"), {}, finished, folder, ("png",))
    out.print("\nTables  " + "  ".join(map(str, written)), soft_wrap=True)
    out.print("Figures " + "  ".join(str(paths[0]) for paths in drawn.values()), soft_wrap=True)
    print_undrawn(undrawn)
    if store.uri != tracking_uri(lab):
        return  # The store is a temporary one, made from an archive.
    out.print(f"Record  {without_passwords(tracking_uri(lab))}", soft_wrap=True)
    # Under make, the command is in .venv/bin, which may be missing from the PATH.
    words = ["mhiflab"] if shutil.which("mhiflab") else [os.path.relpath(sys.argv[0])]
    if Path(sys.argv[0]).name == "__main__.py":
        words = ["python", "-m", "mhiflab"]
    words += ["ui"] if lab.root == DEFAULT_LAB else ["ui", "--lab", str(lab.root)]
    out.print(f"Browse the runs in MLflow:  [bold]{escape(shlex.join(words))}[/]", soft_wrap=True)


def print_undrawn(errors: Mapping[str, UserError]) -> None:
    """Print the kinds of figures that were not drawn, and the reasons."""
    for kind, error in errors.items():
        out.print(f"[yellow]{kind:8} not drawn: {escape(str(error))}[/]", soft_wrap=True)
