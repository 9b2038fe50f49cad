"""Commands around a study: plan, run, retry, status, stop, sync, gc, demo."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from rich.markup import escape
from typer import Exit, Option

from feinfn.errors import UserError
from mhiflab.cli import options
from mhiflab.console import out
from mhiflab.paths import DEFAULT_LAB, Lab, check_targets, study_name, study_path


def plan(
    paper: options.PaperArgument,
    smoke: options.SmokeOption = False,
    keys: Annotated[bool, Option("--keys", help="Also list the run key of every trial.")] = False,
    lab: options.LabOption = DEFAULT_LAB,
) -> None:
    """Show which runs a study or a paper needs, which exist, and what the others will cost.

    Executes nothing.
    """
    from mhiflab.plan.show import show_plan

    for file in options.study_files(paper):
        show_plan(file, smoke, Lab(lab), keys)


def run(
    paper: options.PaperArgument,
    smoke: options.SmokeOption = False,
    new_data: options.NewDataOption = False,
    repeat_lost: options.RepeatOption = False,
    fill: Annotated[
        list[str] | None, Option(help="Run only what this table or figure still needs. Repeatable.")
    ] = None,
    lab: options.LabOption = DEFAULT_LAB,
) -> None:
    """Execute the runs a study or a paper still lacks, then print its tables.

    Trials run as Ray Train workers under one Ray Tune driver: on this machine, or on the cluster
    named by RAY_ADDRESS. Running again executes only what has no finished run; an interrupted
    trial continues from its last saved state. Failed trials wait for `mhiflab retry`.
    """
    _run(paper, smoke, Lab(lab), fill or (), new_data, repeat_lost)


def retry(
    paper: options.PaperArgument,
    smoke: options.SmokeOption = False,
    lab: options.LabOption = DEFAULT_LAB,
) -> None:
    """Execute the failed trials of a study or a paper again, and nothing else.

    Each continues from its last saved state, if there is one.
    """
    _run(paper, smoke, Lab(lab), failed=True)


def _run(
    name: str,
    smoke: bool,
    lab: Lab,
    fill: Sequence[str] = (),
    new_data: bool = False,
    repeat_lost: bool = False,
    failed: bool = False,
) -> None:
    """Execute the missing or failed trials that some parts need, by default all; render these."""
    from mhiflab.execute.run import MISSING, execute_studies
    from mhiflab.record.store import recorded_store
    from mhiflab.render.paper import Plans, checked_paper, describe_plan, render

    path = study_path(name)
    folder = lab.rendered_of(path, smoke)
    check_targets((folder / "table.md",))
    paper = checked_paper(path)
    parts = paper.chosen(fill, paper.parts)
    states = ("failed",) if failed else MISSING
    finished = execute_studies(paper.files(parts), smoke, lab, states, new_data, repeat_lost)
    plans = Plans(paper, smoke, recorded_store(lab), lab, by_file=finished)
    render(plans, folder, parts, asked=fill)
    for plan in finished.values():
        # A study may have figures, but mix what one table cannot show.
        with suppress(UserError):
            if not plan.unfinished:
                describe_plan(plan, smoke, lab)


def status(
    paper: options.PaperArgument,
    smoke: options.SmokeOption = False,
    watch: Annotated[
        bool, Option("--watch", help="Refresh every few seconds until Ctrl-C.")
    ] = False,
    lab: options.LabOption = DEFAULT_LAB,
) -> None:
    """Show where every run of a study or a paper stands: state, epoch, validation PSNR, time."""
    from mhiflab.plan.show import show_status

    show_status(options.study_files(paper), smoke, Lab(lab), watch)


def stop(
    paper: options.PaperArgument,
    smoke: options.SmokeOption = False,
    lab: options.LabOption = DEFAULT_LAB,
) -> None:
    """Stop the driver that works on a study or a paper; its trials continue with the next run."""
    from mhiflab.execute.driver import stop_driver
    from mhiflab.record.store import existing_store
    from mhiflab.record.studies import find_study

    store = existing_store(Lab(lab))
    names = [study_name(file, smoke) for file in options.study_files(paper)]
    parents = [find_study(store, name) for name in names] if store else []
    out.print(stop_driver(Lab(lab), store, [parent for parent in parents if parent]))


def sync(lab: options.LabOption = DEFAULT_LAB) -> None:
    """Upload runs that could not reach MLflow, from the folders where they wait.

    `run` does so before it plans. Uploading twice changes nothing.
    """
    from mhiflab.execute.run import upload_waiting_runs

    if upload_waiting_runs(Lab(lab)):
        raise Exit(1)
    out.print("Nothing waits any more: the record is complete")


def gc(
    dry_run: Annotated[bool, Option("--dry-run", help="Only list what would be removed.")] = False,
    lab: options.LabOption = DEFAULT_LAB,
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


def demo(lab: options.LabOption = DEFAULT_LAB) -> None:
    """Run the shipped demo study: FeINFN, the same with the MSI given, without its Fourier branch.

    Trains on real hyperspectral crops that come with the package; a few minutes on two cores.
    """
    run("demo", lab=lab)
