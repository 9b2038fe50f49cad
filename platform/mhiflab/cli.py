"""The `mhiflab` command."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.data_cli import data_app
from mhiflab.evaluate_cli import evaluate_command
from mhiflab.paths import Lab, study_path

if TYPE_CHECKING:
    from mhiflab.plan import Plan

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
out = Console(highlight=False)

StudyArgument = Annotated[
    str,
    typer.Argument(
        help="A study file such as experiments/demo.yaml, or the name of a shipped study (demo).",
        metavar="STUDY",
    ),
]
LabOption = Annotated[
    Path,
    typer.Option(
        "--lab",
        help="Folder of checkpoints, tables and (unless MLFLOW_TRACKING_URI is set) the record.",
        envvar="MHIFLAB_LAB",
    ),
]
HERE = Path("lab")


@app.callback()
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show Python tracebacks instead of one-line errors.")
    ] = False,
) -> None:
    """Options before the command; `--debug` is also taken anywhere else."""


def _render(study: str, lab: Lab, conventions: Sequence[str | None] = (None,)) -> None:
    from mhiflab.figures import curve_figure, error_figure
    from mhiflab.plan import read_plan, reconcile
    from mhiflab.tables import collect, markdown, write_tables
    from mhiflab.tracking import recorded_store, tracking_uri

    plan = read_plan(study_path(study))
    store = recorded_store(lab)
    plan = reconcile(plan, store, lab)
    folder = lab.rendered(plan.name)
    written: list[Path] = []
    if plan.searches:
        from mhiflab.search_figures import write_searches

        written += write_searches(plan, folder)
        _show_searches(plan)
        if not all(one.complete for one in plan.searches):
            raise UserError(
                f"{plan.path}: its search is not complete (so far: {written[0]}); continue it "
                f"first: mhiflab run {study}"
            )
    figures: list[Path] = []
    for convention in conventions:
        results = collect(plan, store, convention)
        written += write_tables(plan, results, folder)
        out.print(Markdown(markdown(plan, results)))
        figures.append(error_figure(plan, results, store, folder / f"figure{results.suffix}.png"))
    figures.append(curve_figure(plan, store, folder / "curve.png"))
    out.print("\nTables  " + "  ".join(map(str, written)), soft_wrap=True)
    out.print("Figures " + "  ".join(map(str, figures)), soft_wrap=True)
    out.print(f"Record  {tracking_uri(lab)}", soft_wrap=True)
    # Under make the command is in .venv/bin, which need not be on the PATH.
    command = "mhiflab" if shutil.which("mhiflab") else os.path.relpath(sys.argv[0])
    hint = "" if lab.root == HERE else f" --lab {lab.root}"
    out.print(f"Browse the runs in MLflow:  [bold]{command} ui{hint}[/]", soft_wrap=True)


def _show_searches(plan: "Plan") -> None:
    for one in plan.searches:
        out.print(f"[bold]{escape(one.base.case)}[/] {escape(one.line())}", soft_wrap=True)


def _search(study: str, wanted: "Plan", folder: Lab) -> "Plan":
    """Execute what the searches of a study lack and return the plan with their best suggestions."""
    from mhiflab.plan import read_plan, reconcile
    from mhiflab.tracking import recorded_store

    if all(one.complete for one in wanted.searches):
        return wanted
    from mhiflab.search_driver import execute_searches

    _show_searches(wanted)
    try:
        failures = execute_searches(wanted, folder, out)
    except KeyboardInterrupt:
        raise UserError(
            "stopped; finished suggestions are on record and the others continue from their last "
            f"epoch: mhiflab run {study}"
        ) from None
    wanted = reconcile(read_plan(study_path(study)), recorded_store(folder), folder)
    _show_searches(wanted)
    if not all(one.complete for one in wanted.searches):
        raise UserError(
            "the search is not complete, what is finished is on record; run again to continue; "
            f"first failure: {failures[0] if failures else 'none was reported'}"
        )
    return wanted


@app.command()
def plan(study: StudyArgument, lab: LabOption = HERE) -> None:
    """Show which runs a study needs, and which of them exist already. Executes nothing."""
    from mhiflab.plan import plan_table, read_plan, reconcile
    from mhiflab.tracking import existing_store

    folder = Lab(lab)
    wanted = reconcile(read_plan(study_path(study)), existing_store(folder), folder)
    out.print(plan_table(wanted))
    _show_searches(wanted)
    out.print(f"{len(wanted.missing)} of {len(wanted.entries)} trials to execute")


@app.command()
def run(study: StudyArgument, lab: LabOption = HERE) -> None:
    """Execute the runs a study still lacks, then print its table.

    Trials run as Ray Train workers under one Ray Tune driver: on this machine, or on the cluster
    named by RAY_ADDRESS. Running again executes only what has no finished run; an interrupted
    trial continues from its last epoch.
    """
    from mhiflab.plan import plan_table, read_plan, reconcile
    from mhiflab.tracking import existing_store

    folder = Lab(lab)
    wanted = reconcile(read_plan(study_path(study)), existing_store(folder), folder)
    wanted = _search(study, wanted, folder)
    out.print(plan_table(wanted))
    missing = len(wanted.missing)
    out.print(f"{missing} of {len(wanted.entries)} trials to execute\n")
    if missing:
        from mhiflab.sweep import execute

        started = time.monotonic()
        try:
            failures = execute(wanted, folder, out)
        except KeyboardInterrupt:
            raise UserError(
                f"stopped; finished trials are on record and the others continue from their last "
                f"epoch: mhiflab run {study}"
            ) from None
        out.print(f"{missing - len(failures)} trials in {time.monotonic() - started:.0f} s\n")
        if failures:
            raise UserError(
                f"{len(failures)} of {missing} trials failed, the others are recorded; first: "
                + failures[0]
            )
    _render(study, folder)


@app.command()
def table(
    study: StudyArgument,
    convention: Annotated[
        list[str] | None,
        typer.Option(help="Metric convention (matlab by default); repeat for several tables."),
    ] = None,
    lab: LabOption = HERE,
) -> None:
    """Render a finished study from its recorded runs: Markdown, LaTeX, CSV and one figure.

    Every number comes from MLflow; scenes are read only to identify the runs. The same runs
    give the same bytes.
    """
    _render(study, Lab(lab), convention or [None])


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
    from mhiflab.plan import read_plan, reconcile
    from mhiflab.robustness import Grid, record_picture, summary
    from mhiflab.robustness import robustness as evaluate_grid
    from mhiflab.tables import frame_table
    from mhiflab.tracking import recorded_store

    folder = Lab(lab)
    store = recorded_store(folder)
    grid = Grid()
    if sigma:
        grid = replace(grid, sigma_factors=tuple(sigma))
    if snr:
        grid = replace(grid, snrs_db=tuple(snr))
    grid = replace(grid, srfs=tuple(srf or ()))
    plan = reconcile(read_plan(study_path(study)), store, folder)
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
    from mhiflab.describe import cost_tables

    for panel in cost_tables(study_path(study)):
        out.print(panel)


@app.command()
def demo(lab: LabOption = HERE) -> None:
    """Run the shipped demo study: FeINFN with and without its Fourier branch, two seeds each.

    Trains on real hyperspectral crops that come with the package; a few minutes on two cores.
    """
    run("demo", lab)


@app.command()
def ui(
    lab: LabOption = HERE,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Open the MLflow UI on the lab's record, on this machine only (127.0.0.1)."""
    from mhiflab.tracking import recorded_store, tracking_uri

    folder = Lab(lab)
    recorded_store(folder)
    uri = tracking_uri(folder)
    if uri.startswith("http"):
        out.print(f"The record is on a server with a UI of its own: [bold]{uri}[/]")
        return
    out.print(f"MLflow UI on [bold]http://127.0.0.1:{port}[/] (Ctrl-C ends it)")
    words = ["server", "--backend-store-uri", uri]
    words += ["--artifacts-destination", str(folder.artifacts.resolve())]
    words += ["--host", "127.0.0.1", "--port", str(port)]
    raise typer.Exit(subprocess.call([sys.executable, "-m", "mlflow", *words]))


app.command("evaluate")(evaluate_command)


def main() -> None:
    """Entry point: one line per error and exit code 1, unless --debug."""
    from mhiflab.quiet import quieten

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
