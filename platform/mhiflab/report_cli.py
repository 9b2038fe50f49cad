"""The `report` command: a study as one HTML file; heavy libraries are imported when it runs."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from mhiflab.console import out
from mhiflab.paths import HERE, Lab, check_targets, study_path
from mhiflab.plan.plan import current_plan
from mhiflab.study_cli import LabOption, SmokeOption, StudyArgument

REPORT_FILE = "report.html"


def report_command(
    study: StudyArgument,
    smoke: SmokeOption = False,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="HTML file; default: among the study's rendered files."),
    ] = None,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="Do not store the page with the study's MLflow run.")
    ] = False,
    lab: LabOption = HERE,
) -> None:
    """Write one HTML page: state, results, statistics, figures, spectra and provenance.

    Everything comes from MLflow and is inside the file, which asks no network for anything. The
    same records give the same bytes. An unfinished study shows what there is.
    """
    from feinfn.files import write_bytes
    from mhiflab.record.store import add_artifact, find_study, recorded_store
    from mhiflab.render.report.page import report

    folder = Lab(lab)
    path = out_file or folder.rendered_of(study_path(study), smoke) / REPORT_FILE
    check_targets((path,))
    plan = current_plan(study, smoke, folder)
    store = recorded_store(folder)
    page = report(plan, store).encode()
    write_bytes(path, page)
    out.print(f"Report  {path} ({len(page) / 1e6:.1f} MB)", soft_wrap=True)
    if no_log:
        return
    parent = find_study(store, plan.name)
    if parent is None:
        out.print("Not stored in MLflow: this study has no run of its own yet")
        return
    with tempfile.TemporaryDirectory(prefix="mhiflab-") as place:
        named = Path(place) / REPORT_FILE
        named.write_bytes(page)
        add_artifact(store, parent, named)
    out.print(f"Stored as {REPORT_FILE} with the study's run {parent}", soft_wrap=True)
