"""The commands around a study: plan, run, retry, status, stop, gc."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.live import Live
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.environment import rare_collections
from mhiflab.execute.run import execute_study, upload_waiting_runs
from mhiflab.paths import HERE, Lab, study_name, study_path
from mhiflab.plan.plan import current_plan, plan_refresher
from mhiflab.plan.show import print_forecast, print_plan
from mhiflab.record.store import recorded_store
from mhiflab.render.study import check_rendered, render_study

WATCH_S = 2.0

StudyArgument = Annotated[
    str,
    typer.Argument(
        help="A study file such as experiments/demo.yaml, or the name of a shipped study (demo); "
        "for plan, run, table also a paper's file (experiments/paper/paper.yaml).",
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

SmokeOption = Annotated[
    bool,
    typer.Option(
        "--smoke", help="The study's small variant: a minute on two cores, embedded sample."
    ),
]

RecordOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder that `export` wrote: its runs instead of the lab's; needs no scenes."
    ),
]

NewDataOption = Annotated[
    bool,
    typer.Option("--new-data", help="Start trials anew whose data changed since they began."),
]


def plan(
    study: StudyArgument,
    smoke: SmokeOption = False,
    keys: Annotated[bool, typer.Option("--keys", help="Also list every trial's run key.")] = False,
    lab: LabOption = HERE,
) -> None:
    """Show which runs a study needs, which of them exist, and what the others will cost.

    Executes nothing.
    """
    from mhiflab.study.yaml_values import is_paper

    path = study_path(study)
    if is_paper(path):
        from mhiflab.paper_cli import show_paper

        show_paper(path, smoke, Lab(lab))
        return
    with rare_collections():
        wanted = current_plan(study, smoke, Lab(lab))
        print_plan(wanted)
        if keys:
            for entry in wanted.entries:
                out.print(f"{entry.key[:12] or '-':12}  {entry.state:8} {escape(entry.who)}")
        print_forecast(wanted, [*wanted.unsearched, *wanted.missing])


def run(
    study: StudyArgument,
    smoke: SmokeOption = False,
    new_data: NewDataOption = False,
    fill: Annotated[
        list[str] | None,
        typer.Option(help="Of a paper: only what this table or figure lacks; repeat for more."),
    ] = None,
    lab: LabOption = HERE,
) -> None:
    """Execute the runs a study or a paper still lacks, then print its table.

    Trials run as Ray Train workers under one Ray Tune driver: on this machine, or on the cluster
    named by RAY_ADDRESS. Running again executes only what has no finished run; an interrupted
    trial continues from its last saved state. Failed trials wait for `mhiflab retry`.
    """
    from mhiflab.study.yaml_values import is_paper

    path = study_path(study)
    check_rendered(path, smoke, Lab(lab))
    if is_paper(path):
        from mhiflab.paper_cli import run_paper

        run_paper(path, smoke, Lab(lab), fill or (), new_data)
        return
    if fill:
        raise UserError(
            f"--fill: found with {path}, a study, expected with a paper; leave it out: a study "
            "runs exactly what it lacks"
        )
    plan = execute_study(study, smoke, Lab(lab), new_data=new_data)
    render_study(plan, recorded_store(Lab(lab)), Lab(lab))


def retry(study: StudyArgument, smoke: SmokeOption = False, lab: LabOption = HERE) -> None:
    """Execute a study's failed trials again, and nothing else.

    Each continues from its last saved state, if there is one.
    """
    plan = execute_study(study, smoke, Lab(lab), ("failed",))
    render_study(plan, recorded_store(Lab(lab)), Lab(lab))


def status(
    study: StudyArgument,
    smoke: SmokeOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every few seconds, until Ctrl-C.")
    ] = False,
    lab: LabOption = HERE,
) -> None:
    """Show where every run of a study stands: state, epoch, validation PSNR, time."""
    with rare_collections():
        from mhiflab.plan.show import status_table

        now = plan_refresher(study, smoke, Lab(lab))
        if not watch:
            out.print(status_table(now()))
            return
    try:
        with Live(status_table(now()), console=out, auto_refresh=False) as live:
            while True:
                time.sleep(WATCH_S)
                live.update(status_table(now()), refresh=True)
    except KeyboardInterrupt:
        raise typer.Exit from None


def stop(study: StudyArgument, smoke: SmokeOption = False, lab: LabOption = HERE) -> None:
    """Stop the driver that works on a study; its trials continue with the next run."""
    from mhiflab.execute.driver import stop_driver
    from mhiflab.record.store import existing_store, find_study

    folder = Lab(lab)
    store = existing_store(folder)
    name = study_name(study_path(study), smoke)
    out.print(stop_driver(folder, store, find_study(store, name) if store else None))


def sync(lab: LabOption = HERE) -> None:
    """Bring runs whose record could not reach MLflow to it, from the lab's spool.

    `run` does so by itself before it plans; applying twice changes nothing.
    """
    if upload_waiting_runs(Lab(lab)):
        raise typer.Exit(1)
    out.print("Nothing waits any more: the record is complete")


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
    lab: LabOption = HERE,
) -> None:
    """Remove what no run needs any more: training states of finished runs, and leftovers.

    States of failed and interrupted trials stay, because they continue from them. The record is
    not touched.
    """
    from mhiflab.execute.driver import leftovers, remove

    folder = Lab(lab)
    found = leftovers(folder)
    for one in found:
        out.print(f"{one.size / 2**20:9.1f} MiB  {one.path}  ({one.why})", soft_wrap=True)
    total = sum(one.size for one in found) / 2**20
    if dry_run:
        out.print(f"{total:.1f} MiB in {len(found)} places would be removed")
    else:
        remove(found, folder)
        out.print(f"{total:.1f} MiB in {len(found)} places removed")


STUDY_COMMANDS = (plan, run, retry, status, stop, sync, gc)
