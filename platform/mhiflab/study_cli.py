"""The commands around a study: plan, run, retry, status, stop, gc."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.markdown import Markdown
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.environment import rare_collections
from mhiflab.paths import HERE, Lab, check_targets, study_name, study_path
from mhiflab.plan.plan import current_plan, plan_refresher
from mhiflab.plan.show import print_forecast, print_plan

if TYPE_CHECKING:
    from mhiflab.plan.plan import Entry, Plan
    from mhiflab.record.store import Store
    from mhiflab.sweep import Outcome


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


def bring(lab: Lab) -> int:
    """Bring what lies in the spool to the store; return how many runs still wait."""
    from mhiflab.record.store import tracking_uri
    from mhiflab.record.writer import replay

    found = replay(lab, tracking_uri(lab))
    if found.replayed:
        out.print(f"{found.replayed} runs brought to the record from {lab.spool}")
    if found.waiting:
        text = f"{found.waiting} runs wait in {lab.spool} ({found.reason}); then: mhiflab sync"
        out.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)
    return found.waiting


def check_rendered(path: Path, smoke: bool, lab: Lab) -> None:
    """Raise `UserError` where tables could not be written, before the work for them."""
    check_targets((lab.rendered_of(path, smoke) / "table.md",))


def render(
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
    from mhiflab.figures.registry import draw_each
    from mhiflab.formats import markdown, write_table
    from mhiflab.record.store import shown, tracking_uri
    from mhiflab.recorded import Recorded
    from mhiflab.results import collect
    from mhiflab.tables import study_table

    folder = lab.rendered(plan.name)
    written: list[Path] = []
    if plan.searches:
        from mhiflab.search_figures import write_searches

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
    say_left(left)
    if store.uri != tracking_uri(lab):
        return  # an archive, which is gone when this is read
    out.print(f"Record  {shown(tracking_uri(lab))}", soft_wrap=True)
    # Under make the command is in .venv/bin, which need not be on the PATH.
    words = ["mhiflab"] if shutil.which("mhiflab") else [os.path.relpath(sys.argv[0])]
    if Path(sys.argv[0]).name == "__main__.py":
        words = ["python", "-m", "mhiflab"]
    words += ["ui"] if lab.root == HERE else ["ui", "--lab", str(lab.root)]
    out.print(f"Browse the runs in MLflow:  [bold]{escape(shlex.join(words))}[/]", soft_wrap=True)


def _render(plan: Plan, lab: Lab) -> None:
    """Render a study that was just executed."""
    from mhiflab.record.store import recorded_store

    render(plan, recorded_store(lab), lab)


def say_left(left: Mapping[str, UserError]) -> None:
    """Print which kinds of figures could not be drawn, and why."""
    for kind, why in left.items():
        out.print(f"[yellow]{kind:8} not drawn: {escape(str(why))}[/]", soft_wrap=True)


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
    _render(execute_study(study, smoke, Lab(lab), new_data), Lab(lab))


def retry(study: StudyArgument, smoke: SmokeOption = False, lab: LabOption = HERE) -> None:
    """Execute a study's failed trials again, and nothing else.

    Each continues from its last saved state, if there is one.
    """
    _render(_execute(study, smoke, Lab(lab), ("failed",)), Lab(lab))


class StoppedError(UserError):
    """Somebody stopped the run; nothing failed."""


def _carry_out(
    execute: Callable[..., Outcome], plan: Plan, entries: Sequence[Entry], lab: Lab
) -> Outcome:
    """Say what trials will cost, execute them, and say how long it took."""
    started = time.monotonic()
    expected = print_forecast(plan, entries)
    out.print()
    try:
        outcome = execute(plan, entries, expected, lab, out)
    except KeyboardInterrupt:
        raise StoppedError(
            "stopped; finished trials are on record and the others continue from their last "
            f"saved state: mhiflab run {plan.command}"
        ) from None
    bring(lab)
    out.print(f"{len(outcome.done)} trials in {time.monotonic() - started:.0f} s\n")
    return outcome


def execute_study(study: str, smoke: bool, lab: Lab, new_data: bool = False) -> Plan:
    """Execute the runs a study lacks and return its plan; raise `UserError` for what failed."""
    return _execute(study, smoke, lab, ("new", "resume"), new_data)


def _execute(
    study: str, smoke: bool, lab: Lab, states: tuple[str, ...], new_data: bool = False
) -> Plan:
    bring(lab)
    now = plan_refresher(study, smoke, lab, new_data)
    wanted = now()
    print_plan(wanted)
    if wanted.unsearched:
        from mhiflab.search_driver import execute_searches

        outcome = _carry_out(execute_searches, wanted, wanted.unsearched, lab)
        wanted = now()
        print_plan(wanted)
        if wanted.unsearched:
            first = [*outcome.failed.values(), *outcome.left.values(), "none was reported"][0]
            raise UserError(
                "the search is not complete, what is finished is on record; it continues with: "
                f"mhiflab run {wanted.command}; first failure: {first}"
            )
    entries = wanted.unique(*states)
    running = wanted.unique("running")
    if running and not entries:
        raise UserError(
            f"{lab.root}: another mhiflab run is at work in this folder on {len(running)} trials "
            f"of this study; see: mhiflab status {wanted.command}"
        )
    if entries:
        from mhiflab.sweep import execute

        outcome = _carry_out(execute, wanted, entries, lab)
        if outcome.failed:
            raise UserError(
                f"{len(outcome.failed)} of {len(entries)} trials failed, the others are recorded; "
                f"first: {next(iter(outcome.failed.values()))}; after a remedy: mhiflab retry "
                f"{wanted.command}"
            )
        if outcome.left:
            raise UserError(
                f"{len(outcome.left)} of {len(entries)} trials did not end; first: "
                f"{next(iter(outcome.left.values()))}; they continue with: mhiflab run "
                f"{wanted.command}"
            )
        wanted = now()
    if not wanted.unfinished:
        _close_study(wanted, lab)
    return wanted


def _close_study(plan: Plan, lab: Lab) -> None:
    """Close a finished study's run and clear its scratch, where whoever made them could not."""
    from mhiflab.collect import clear_scratch
    from mhiflab.record.store import find_study, recorded_store
    from mhiflab.record.writer import finish_study

    clear_scratch(lab)
    store = recorded_store(lab)
    parent = find_study(store, plan.name)
    if parent and store.client.get_run(parent).info.status != "FINISHED":
        finish_study(lab, store.uri, plan.name, complete=True)


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
    from mhiflab.driver import stop_driver
    from mhiflab.record.store import existing_store, find_study

    folder = Lab(lab)
    store = existing_store(folder)
    name = study_name(study_path(study), smoke)
    out.print(stop_driver(folder, store, find_study(store, name) if store else None))


def sync(lab: LabOption = HERE) -> None:
    """Bring runs whose record could not reach MLflow to it, from the lab's spool.

    `run` does so by itself before it plans; applying twice changes nothing.
    """
    if bring(Lab(lab)):
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
    from mhiflab.collect import leftovers, remove

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
