"""Page of a report: one HTML file with all it needs; the same records give the same bytes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from feinfn.errors import UserError
from mhiflab.plan.plan import Plan
from mhiflab.plan.show import counts_line, remarks, state_grid
from mhiflab.render.pages import page
from mhiflab.render.report import sections
from mhiflab.render.report.drawings import draw_figures
from mhiflab.render.report.windows import read_windows, viewer_data
from mhiflab.render.runs import collect
from mhiflab.render.tables.formats import table_grid
from mhiflab.render.tables.table import notes, study_table


def report_page(plans: Sequence[Plan], title: str = "") -> str:
    """Return a page on studies, each with an equal share of the room for images and figures.

    Images, figures and the viewer have a largest size each, so that a page stays below 15 MB beside
    its tables of runs. An unfinished study shows what is recorded and missing. The viewer shows the
    first study that has something to look into. Raises `UserError` if the store cannot be read.
    """
    studies = [_study_values(plan, 1 / len(plans)) for plan in plans]
    with_viewer = False
    for study in studies:
        windows, plan = study["windows"], study["plan"]
        study["viewer"] = None
        if windows.first and with_viewer:
            windows.notes.append(f"A page of its own shows them: mhiflab report {plan.command}")
        elif windows.first:
            study["viewer"] = viewer_data(windows, windows.first)
            with_viewer = True
    return page(
        "report.html",
        title or plans[0].study.title,
        scripts=("tables.js", "viewer.js"),
        studies=studies,
    )


def _study_values(plan: Plan, share: float) -> dict[str, Any]:
    """Return the template's values of a study, which may take a share of the page's room."""
    # Every case has a label of its own.
    labelled = (
        replace(e, trial=replace(e.trial, label=plan.labels[e.trial.case])) for e in plan.entries
    )
    plan = replace(plan, entries=tuple(labelled))
    done = replace(plan, entries=plan.finished)
    shared, runs = sections.origin(plan)
    values: dict[str, Any] = {
        "plan": plan,
        "done": done,
        "state": replace(state_grid(plan, progress=True), title=""),
        "state_notes": [*remarks(plan), f"{counts_line(plan)}."],
        "problem": "No run is finished yet.",
        "results": None,
        "table": None,
        "figures": [],
        "not_drawn": [],
        "windows": read_windows(plan),
        "shared": shared,
        "runs": runs,
        "differences": sections.settings_grid(plan),
    }
    if not done.entries:
        return values
    try:
        results = collect(done)
    except UserError as error:
        return values | {"problem": str(error)}
    # With all entries, because a row that lacks runs gets no mark.
    table = study_table(replace(results, plan=plan))
    verdicts, warnings = sections.statistics(results)
    figures, not_drawn = draw_figures(done, plan, share)
    return values | {
        "results": results,
        "table": replace(table_grid(table), title=""),
        "table_notes": notes(table),
        "verdicts": verdicts,
        "warnings": warnings,
        "images": sections.image_grid(results, share),
        "figures": figures,
        "not_drawn": not_drawn,
    }
