"""The `compare` command: recorded runs side by side; heavy libraries are imported when it runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.study_cli import HERE, LabOption, SmokeOption, out, read

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mhiflab.tracking import Store


def compare_command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Run keys or their first digits; the first is the baseline."),
    ] = None,
    study: Annotated[str, typer.Option(help="Instead: the finished runs of a study.")] = "",
    case: Annotated[
        list[str] | None, typer.Option(help="Only this case of the study; repeat for more.")
    ] = None,
    smoke: SmokeOption = False,
    filter_: Annotated[
        str,
        typer.Option("--filter", help="Instead: the finished runs that an MLflow filter finds."),
    ] = "",
    convention: Annotated[
        str | None, typer.Option(help="Metric convention (matlab by default).")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="Report; LAB/rendered by default."),
    ] = None,
    lab: LabOption = HERE,
) -> None:
    """Show what differs between runs: settings, code, data, metrics image by image, and curves.

    Everything comes from MLflow. The report is one HTML file that needs no network; the same runs
    give the same bytes.
    """
    from feinfn.checkpoint import write_atomic
    from mhiflab.compare import compare_runs
    from mhiflab.compare_page import page, show
    from mhiflab.run_files import read_run
    from mhiflab.runs import chosen_runs
    from mhiflab.tracking import KEY, recorded_store

    if sum(map(bool, (runs, study, filter_))) != 1:
        raise UserError(
            "compare: expected run keys, or --study, or --filter, one of them; name the runs"
        )
    if case and not study:
        raise UserError(f"--case: found {', '.join(case)} without --study; name the study")
    if file and file.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out: found {str(file)!r}, expected a name ending in .html")
    folder = Lab(lab)
    store = recorded_store(folder)
    if study:
        found = _of_study(study, case or [], smoke, folder)
    else:
        found = _filtered(store, filter_) if filter_ else chosen_runs(store, runs or [])
    sections = compare_runs(found, lambda run: read_run(store, run), convention)
    show(sections, out)
    keys = [run.data.tags[KEY][:8] for run in found]
    path = file or folder.rendered(f"compare-{'-'.join(keys)}.html")
    text = page(f"Runs {', '.join(keys)}", sections)
    write_atomic(path, lambda partial: partial.write_text(text, encoding="utf-8", newline="\n"))
    out.print(f"Report  {escape(str(path))}", soft_wrap=True)


def _of_study(study: str, cases: list[str], smoke: bool, lab: Lab) -> "list[Run]":
    """Return the finished runs of a study in its order, of some cases where they are named."""
    plan = read(study, smoke, lab)
    known = list(dict.fromkeys(entry.trial.case for entry in plan.entries))
    for case in cases:
        if case not in known:
            raise UserError(f"--case: found {case!r}, expected one of {', '.join(known)}")
    wanted = [entry for entry in plan.entries if not cases or entry.trial.case in cases]
    if left := [entry.who for entry in wanted if entry.state != "done"]:
        text = f"Left out, because they are not finished: {'; '.join(left)}"
        out.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)
    return [entry.run for entry in wanted if entry.state == "done" and entry.run]


def _filtered(store: "Store", text: str) -> "list[Run]":
    """Return the finished runs that a filter finds, the oldest first."""
    from mlflow.exceptions import MlflowException

    from mhiflab.tracking import KEY, KIND, is_refusal, search_runs

    try:
        found = search_runs(
            store, f"tags.`{KIND}` = 'trial' and attributes.status = 'FINISHED' and {text}"
        )
    except MlflowException as error:
        if not is_refusal(error):
            raise
        raise UserError(
            f"--filter: found {text!r}, which MLflow refuses ({str(error).splitlines()[0]}), "
            "expected a filter such as: metrics.test_psnr > 40 and tags.`mhiflab.case` = 'full'"
        ) from None
    return sorted(found, key=lambda run: (run.info.start_time, run.data.tags[KEY]))
