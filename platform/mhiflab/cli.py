"""The `mhiflab` command."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.cluster_cli import doctor_command, submit_command
from mhiflab.compare_cli import compare_command
from mhiflab.console import out
from mhiflab.data_cli import data_app
from mhiflab.evaluate_cli import evaluate_command
from mhiflab.figure_cli import figure
from mhiflab.fuse_cli import fuse_command
from mhiflab.paths import HERE, Lab, check_targets, study_path
from mhiflab.plan.plan import current_plan, plan_with_store
from mhiflab.render.study import check_rendered, render_study
from mhiflab.report_cli import report_command
from mhiflab.study_cli import (
    STUDY_COMMANDS,
    LabOption,
    RecordOption,
    SmokeOption,
    StudyArgument,
    run,
)

app = typer.Typer(
    help="A laboratory for hyperspectral image fusion around FeINFN.\n\n"
    "A study (YAML) lists cases and seeds; [bold]plan[/] shows which runs it still needs, "
    "[bold]run[/] makes exactly those on this machine or a Ray cluster, and [bold]table[/] renders "
    "from the recorded runs alone. Start with [bold]mhiflab demo[/].",
    rich_markup_mode="rich",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data_app, name="data")
for command in STUDY_COMMANDS:
    app.command()(command)


@app.callback()
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show Python tracebacks instead of one-line errors.")
    ] = False,
) -> None:
    """Options before the command; `--debug` is also taken anywhere else."""


@app.command()
def table(
    study: StudyArgument,
    smoke: SmokeOption = False,
    convention: Annotated[
        list[str] | None,
        typer.Option(help="Metric convention (matlab by default); repeat for several tables."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Of a paper: this table; repeat for more.")
    ] = None,
    costs: Annotated[
        bool, typer.Option("--costs", help="With columns of parameters, operations, time, memory.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Also while runs are missing; their rows are marked.")
    ] = False,
    record: RecordOption = None,
    lab: LabOption = HERE,
) -> None:
    """Render a study or a paper from its recorded runs: Markdown, LaTeX, HTML, CSV and figures.

    A JSON file beside each table names the runs, images, convention and protocol of every number.

    Every number comes from MLflow; scenes are read only to identify the runs. The same runs
    give the same bytes.
    """
    from mhiflab.render.tables.rows import COSTS
    from mhiflab.study.yaml_values import is_paper

    folder, path = Lab(lab), study_path(study)
    check_rendered(path, smoke, folder)
    if is_paper(path):
        from mhiflab.render.paper import table_paper

        if convention or costs:
            raise UserError(
                f"--convention, --costs: found with {path}, a paper, expected with a study; a "
                "paper's tables say both in its file"
            )
        table_paper(path, smoke, folder, name or (), partial, record)
        return
    if name:
        raise UserError(f"--name: found with {path}, a study, expected with a paper; leave it out")
    wanted = tuple(COSTS) if costs else ()
    with plan_with_store(path, smoke, folder, record) as (plan, store):
        render_study(plan, store, folder, convention or [None], wanted, partial)


PaperArgument = Annotated[
    str, typer.Argument(help="A paper's file (or the name of a shipped one: paper).")
]


@app.command()
def verify(
    paper: PaperArgument,
    smoke: SmokeOption = False,
    rendered: Annotated[
        Path | None,
        typer.Option(help="What to compare with; default: rendered/NAME beside the paper."),
    ] = None,
    record: RecordOption = None,
    lab: LabOption = HERE,
) -> None:
    """Render a paper anew from recorded runs and name every cell that differs from its files."""
    from mhiflab.render.verify import verify_paper

    verify_paper(study_path(paper), smoke, Lab(lab), rendered, record)


@app.command("export")
def export_command(
    study: StudyArgument,
    to: Annotated[Path, typer.Option("--out", help="Folder to write into.")],
    smoke: SmokeOption = False,
    lab: LabOption = HERE,
) -> None:
    """Write the runs of a study or a paper as small text files: metrics only, to lie beside it.

    `--record` of table, figure and verify makes tables and curves from them without scenes,
    weights or the store they came from.
    """
    from mhiflab.paper_cli import export_runs
    from mhiflab.record.archive import DATA_FILE, RUNS

    check_targets((to / DATA_FILE, to / RUNS / "run.json"))
    export_runs(study_path(study), smoke, Lab(lab), to)


@app.command()
def robustness(
    study: StudyArgument,
    case: Annotated[str, typer.Option(help="Only this case of the study; all by default.")] = "",
    sigma: Annotated[
        list[float] | None,
        typer.Option(help="PSF width as a multiple of the protocol's; repeat for more."),
    ] = None,
    srf: Annotated[
        list[str] | None, typer.Option(help="Further response table; repeat for more.")
    ] = None,
    snr: Annotated[
        list[float] | None, typer.Option(help="Signal-to-noise ratio in dB; repeat for more.")
    ] = None,
    lab: LabOption = HERE,
) -> None:
    """Evaluate a study's finished runs off their protocol: PSF x SRF x noise.

    Only cells that are not on record are computed; table and picture become artifacts of each run.
    """
    from mhiflab.execute.robustness import Grid
    from mhiflab.execute.robustness import robustness as evaluate_grid
    from mhiflab.record.store import recorded_store
    from mhiflab.render.figures.images.robustness import record_picture, summary
    from mhiflab.render.tables.table import frame_table

    folder = Lab(lab)
    store = recorded_store(folder)
    grid = Grid()
    if sigma:
        grid = replace(grid, sigma_factors=tuple(sigma))
    if snr:
        grid = replace(grid, snrs_db=tuple(snr))
    grid = replace(grid, srfs=tuple(srf or ()))
    plan = current_plan(study, False, folder)
    entries = [e for e in plan.entries if case in ("", e.trial.case)]
    if not entries:
        names = ", ".join(dict.fromkeys(e.trial.case for e in plan.entries))
        raise UserError(f"--case: found {case!r}, expected one of {names}")
    for entry in entries:
        found = evaluate_grid(entry, store, folder, grid, out)
        path = record_picture(store, entry, found, folder)
        out.print(frame_table(summary(found), f"{entry.trial.label}, seed {entry.trial.spec.seed}"))
        out.print(f"Picture  {path}", soft_wrap=True)


@app.command()
def describe(study: StudyArgument) -> None:
    """Show what each network of a study costs: parameters and operations by module."""
    from mhiflab.plan.costs import cost_tables

    for panel in cost_tables(study_path(study)):
        out.print(panel)


@app.command()
def demo(lab: LabOption = HERE) -> None:
    """Run the shipped demo study: FeINFN with and without its Fourier branch, two seeds each.

    Trains on real hyperspectral crops that come with the package; a few minutes on two cores.
    """
    run("demo", lab=lab)


@app.command()
def ui(
    lab: LabOption = HERE,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the MLflow UI on the lab's record, on this machine only (127.0.0.1)."""
    from mhiflab.record.store import recorded_store, shown, tracking_uri

    folder = Lab(lab)
    recorded_store(folder)
    uri = tracking_uri(folder)
    if uri.startswith("http"):
        out.print(f"The record is on a server with a UI of its own: [bold]{shown(uri)}[/]")
        return
    out.print(f"MLflow UI on [bold]http://127.0.0.1:{port}[/] (Ctrl-C ends it)")
    # In the environment, because every user of a machine sees the words of a command.
    environment = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    words = ["server", "--artifacts-destination", str(folder.artifacts.resolve())]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    raise typer.Exit(subprocess.call([sys.executable, "-m", "mlflow", *words], env=environment))


app.command("report")(report_command)
app.command("evaluate")(evaluate_command)
app.command("fuse")(fuse_command)
app.command("compare")(compare_command)
app.command()(figure)
app.command("submit")(submit_command)
app.command("doctor")(doctor_command)


def main() -> None:
    """Entry point: one line per error and exit code 1, unless --debug."""
    from mhiflab.environment import quieten

    debug = "--debug" in sys.argv
    quieten()
    try:
        app([word for word in sys.argv[1:] if word != "--debug"])
    except Exception as error:
        if debug:
            raise
        known = isinstance(error, UserError)
        text = str(error) if known else f"unexpected {type(error).__name__}: {error}"
        hint = "" if known else " (--debug shows where)"
        Console(stderr=True, highlight=False).print(
            f"[bold red]error:[/] {escape(text + hint)}", soft_wrap=True
        )
        sys.exit(1)
