"""Commands around a study: plan, run, retry, status, stop, sync, gc, demo."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.cli.options import LabOption, NewDataOption, SmokeOption, StudyArgument
from mhiflab.console import out
from mhiflab.paths import DEFAULT_LAB, Lab, check_rendered, study_name, study_path


def plan(
    study: StudyArgument,
    smoke: SmokeOption = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="Also list the run key of every trial.")
    ] = False,
    lab: LabOption = DEFAULT_LAB,
) -> None:
    """Show which runs a study needs, which of them exist, and what the others will cost.

    Executes nothing.
    """
    from mhiflab.plan.show import show_study
    from mhiflab.study.yaml_values import is_paper

    path = study_path(study)
    if is_paper(path):
        from mhiflab.render.paper import read_paper, study_files

        for file in study_files(path, read_paper(path).parts):
            show_study(str(file), smoke, Lab(lab), forecast=False)
        return
    show_study(study, smoke, Lab(lab), keys)


def run(
    study: StudyArgument,
    smoke: SmokeOption = False,
    new_data: NewDataOption = False,
    fill: Annotated[
        list[str] | None,
        typer.Option(help="Papers only: run what this table or figure still needs. Repeatable."),
    ] = None,
    lab: LabOption = DEFAULT_LAB,
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
        run_paper(path, smoke, Lab(lab), fill or (), new_data)
        return
    if fill:
        raise UserError(
            f"--fill: found with {path}, a study, expected with a paper; leave it out: a study "
            "runs exactly what it lacks"
        )
    _run_study(study, smoke, Lab(lab), new_data=new_data)


def retry(study: StudyArgument, smoke: SmokeOption = False, lab: LabOption = DEFAULT_LAB) -> None:
    """Execute a study's failed trials again, and nothing else.

    Each continues from its last saved state, if there is one.
    """
    _run_study(study, smoke, Lab(lab), failed=True)


def _run_study(
    study: str, smoke: bool, lab: Lab, new_data: bool = False, failed: bool = False
) -> None:
    """Execute a study's missing or failed trials, then render it."""
    from mhiflab.execute.run import MISSING, execute_study
    from mhiflab.record.store import recorded_store
    from mhiflab.render.study import render_study

    finished = execute_study(study, smoke, lab, ("failed",) if failed else MISSING, new_data)
    render_study(finished, recorded_store(lab), lab)


def run_paper(
    path: Path, smoke: bool, lab: Lab, fill: Sequence[str] = (), new_data: bool = False
) -> None:
    """Execute what a paper's studies lack, or those of some parts; then render these parts.

    A study that fails does not end the others. Raises `UserError` for the first that failed.
    """
    from mhiflab.execute.run import execute_each
    from mhiflab.record.store import recorded_store
    from mhiflab.render.paper import Plans, chosen_parts, read_paper, study_files, write_parts

    paper = read_paper(path)
    parts = chosen_parts(path, paper.parts, fill)
    execute_each(study_files(path, parts), smoke, lab, new_data)
    write_parts(paper, Plans(path, smoke, recorded_store(lab), lab), parts)


def status(
    study: StudyArgument,
    smoke: SmokeOption = False,
    watch: Annotated[
        bool, typer.Option("--watch", help="Refresh every few seconds until Ctrl-C.")
    ] = False,
    lab: LabOption = DEFAULT_LAB,
) -> None:
    """Show where every run of a study stands: state, epoch, validation PSNR, time."""
    from mhiflab.plan.show import show_status, watch_status

    (watch_status if watch else show_status)(study, smoke, Lab(lab))


def stop(study: StudyArgument, smoke: SmokeOption = False, lab: LabOption = DEFAULT_LAB) -> None:
    """Stop the driver that works on a study; its trials continue with the next run."""
    from mhiflab.execute.driver import stop_driver
    from mhiflab.record.store import existing_store, find_study

    folder = Lab(lab)
    store = existing_store(folder)
    name = study_name(study_path(study), smoke)
    out.print(stop_driver(folder, store, find_study(store, name) if store else None))


def sync(lab: LabOption = DEFAULT_LAB) -> None:
    """Upload runs that could not reach MLflow, from the lab's spool.

    `run` does so before it plans. Uploading twice changes nothing.
    """
    from mhiflab.execute.run import upload_waiting_runs

    if upload_waiting_runs(Lab(lab)):
        raise typer.Exit(1)
    out.print("Nothing waits any more: the record is complete")


def gc(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list what would be removed.")
    ] = False,
    lab: LabOption = DEFAULT_LAB,
) -> None:
    """Remove training states of finished runs, and leftovers.

    Failed and interrupted trials keep their states, because they continue from them. The record is
    not touched.
    """
    from mhiflab.execute.driver import leftovers, remove_leftovers

    folder = Lab(lab)
    places = leftovers(folder)
    for place in places:
        line = f"{place.size / 2**20:9.1f} MiB  {place.path}  ({place.why})"
        out.print(escape(line), soft_wrap=True)
    total = sum(place.size for place in places) / 2**20
    if not dry_run:
        remove_leftovers(places, folder)
    outcome = "would be removed" if dry_run else "removed"
    out.print(f"{total:.1f} MiB in {len(places)} places {outcome}")


def demo(lab: LabOption = DEFAULT_LAB) -> None:
    """Run the shipped demo study: FeINFN with and without its Fourier branch, two seeds each.

    Trains on real hyperspectral crops that come with the package; a few minutes on two cores.
    """
    run("demo", lab=lab)
