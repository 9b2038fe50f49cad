"""The `mhiflab` command."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.data_cli import data_app
from mhiflab.evaluate import evaluate_command
from mhiflab.paths import Lab, study_path

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


def _render(study: str, lab: Lab) -> None:
    from mhiflab.figures import error_figure
    from mhiflab.plan import read_plan, reconcile
    from mhiflab.tables import collect, markdown, write_tables
    from mhiflab.tracking import recorded_store, tracking_uri

    plan = read_plan(study_path(study))
    store = recorded_store(lab)
    plan = reconcile(plan, store, lab)
    results = collect(plan, store)
    folder = lab.rendered(plan.name)
    written = write_tables(plan, results, folder)
    written.append(error_figure(plan, results, store, folder / "figure.png"))
    out.print(Markdown(markdown(plan, results)))
    out.print("\nTables  " + "  ".join(str(path) for path in written[:-1]), soft_wrap=True)
    out.print(f"Figure  {written[-1]}", soft_wrap=True)
    out.print(f"Record  {tracking_uri(lab)}", soft_wrap=True)
    # Under make the command is in .venv/bin, which need not be on the PATH.
    command = "mhiflab" if shutil.which("mhiflab") else os.path.relpath(sys.argv[0])
    hint = "" if lab.root == HERE else f" --lab {lab.root}"
    out.print(f"Browse the runs in MLflow:  [bold]{command} ui{hint}[/]", soft_wrap=True)


@app.command()
def plan(study: StudyArgument, lab: LabOption = HERE) -> None:
    """Show which runs a study needs, and which of them exist already. Executes nothing."""
    from mhiflab.plan import plan_table, read_plan, reconcile
    from mhiflab.tracking import existing_store

    folder = Lab(lab)
    wanted = reconcile(read_plan(study_path(study)), existing_store(folder), folder)
    out.print(plan_table(wanted))
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
def table(study: StudyArgument, lab: LabOption = HERE) -> None:
    """Render a finished study from its recorded runs: Markdown, LaTeX, CSV and one figure.

    Every number comes from MLflow; scenes are read only to identify the runs. The same runs
    give the same bytes.
    """
    _render(study, Lab(lab))


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
