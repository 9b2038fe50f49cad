"""Render a study: its table on the console, tables and figures as files."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.markdown import Markdown
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.paths import HERE, Lab
from mhiflab.plan.plan import Plan
from mhiflab.record.store import Store, tracking_uri, without_passwords
from mhiflab.render.figures.registry import draw_each
from mhiflab.render.figures.training.search import write_searches
from mhiflab.render.runs import Recorded, collect
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
    """Print a study's table, and write tables and figures from the runs of a store.

    Only finished studies, unless `partial`.
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
        results = collect(plan, store, convention, partial)
        table = study_table(plan, results, costs)
        written += write_table(table, folder, f"table{results.suffix}")
        out.print(Markdown(markdown(table)))
    recorded = Recorded(plan.finished, store)
    drawn, left = draw_each(("fused", "curves"), {}, recorded, folder, ("png",))
    out.print("\nTables  " + "  ".join(map(str, written)), soft_wrap=True)
    out.print("Figures " + "  ".join(str(paths[0]) for paths in drawn.values()), soft_wrap=True)
    print_undrawn(left)
    if store.uri != tracking_uri(lab):
        return  # an archive, which is gone when this is read
    out.print(f"Record  {without_passwords(tracking_uri(lab))}", soft_wrap=True)
    # Under make the command is in .venv/bin, which need not be on the PATH.
    words = ["mhiflab"] if shutil.which("mhiflab") else [os.path.relpath(sys.argv[0])]
    if Path(sys.argv[0]).name == "__main__.py":
        words = ["python", "-m", "mhiflab"]
    words += ["ui"] if lab.root == HERE else ["ui", "--lab", str(lab.root)]
    out.print(f"Browse the runs in MLflow:  [bold]{escape(shlex.join(words))}[/]", soft_wrap=True)


def print_undrawn(left: Mapping[str, UserError]) -> None:
    """Print which kinds of figures could not be drawn, and why."""
    for kind, why in left.items():
        out.print(f"[yellow]{kind:8} not drawn: {escape(str(why))}[/]", soft_wrap=True)
