"""`mhiflab run`: execute the missing trials of studies; print their cost and what failed."""

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.execute.driver import only_driver
from mhiflab.paths import Lab
from mhiflab.plan.plan import Entry, Plan, plan_refresher
from mhiflab.plan.show import print_forecast, print_plan
from mhiflab.record.store import migrate_record, open_store, recorded_store, tracking_uri
from mhiflab.record.studies import find_study, orphans, study_note, study_run
from mhiflab.record.writer import finish_study, upload_waiting_folders

if TYPE_CHECKING:
    # Ray is loaded only if something is missing.
    from mhiflab.execute.sweep import Outcome

MISSING = ("new", "resume")
"""States of the trials that `mhiflab run` executes."""


class StoppedError(UserError):
    """Error of a run that was stopped by hand or by a batch system; nothing failed."""


def execute_studies(
    files: Sequence[Path],
    smoke: bool,
    lab: Lab,
    states: tuple[str, ...] = MISSING,
    new_data: bool = False,
    repeat_lost: bool = False,
) -> dict[Path, Plan]:
    """Execute several studies' trials that are in one of `states`; return their plans by file.

    A failure does not stop the other studies. Raises `UserError` that quotes the first failure.
    """
    plans: dict[Path, Plan] = {}
    failed: list[str] = []
    if migrated := migrate_record(lab):
        out.print(escape(migrated), soft_wrap=True)
    for number, file in enumerate(files, 1):
        if len(files) > 1:
            out.rule(f"{number} of {len(files)}: {escape(file.stem)}", align="left")
        try:
            plans[file] = execute_study(file, smoke, lab, states, new_data, repeat_lost)
        except StoppedError:
            raise
        except UserError as error:
            if len(files) == 1:
                raise
            failed.append(f"{file.stem}: {error}")
            out.print(f"[red]failed[/] {escape(failed[-1])}", soft_wrap=True)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(files)} studies are not complete, the others are on record; "
            f"first: {failed[0]}"
        )
    return plans


def execute_study(
    path: Path,
    smoke: bool,
    lab: Lab,
    states: tuple[str, ...] = MISSING,
    new_data: bool = False,
    repeat_lost: bool = False,
) -> Plan:
    """Execute a study's trials that are in one of `states`; return its plan.

    Raises `UserError` if a trial failed or did not end, or if another driver is at work on it.
    """
    upload_waiting_runs(lab)
    refresh_plan = plan_refresher(path, smoke, lab, new_data, repeat_lost)
    plan = refresh_plan()
    print_plan(plan)
    if plan.unsearched:
        from mhiflab.execute.search import execute_searches

        outcome = _carry_out(execute_searches, plan, plan.unsearched, lab)
        plan = refresh_plan()
        print_plan(plan)
        if plan.unsearched:
            failures = [*outcome.failed.values(), *outcome.unfinished.values(), "none was reported"]
            raise UserError(
                "the search is not complete, what is finished is on record; it continues with: "
                f"mhiflab run {plan.command}; first failure: {failures[0]}"
            )
    entries = plan.unique(*states)
    running = plan.unique("running")
    if running and not entries:
        raise UserError(
            f"{lab.root}: another mhiflab run is at work in this folder on {len(running)} trials "
            f"of this study; see: mhiflab status {plan.command}"
        )
    if entries:
        from mhiflab.execute.sweep import execute

        outcome = _carry_out(execute, plan, entries, lab)
        for trials, what, remedy in (
            (outcome.failed, "failed, the others are recorded", "after a remedy: mhiflab retry"),
            (outcome.unfinished, "did not end", "they continue with: mhiflab run"),
        ):
            if trials:
                raise UserError(
                    f"{len(trials)} of {len(entries)} trials {what}; first: "
                    f"{next(iter(trials.values()))}; {remedy} {plan.command}"
                )
        plan = refresh_plan()
    if not plan.unfinished:
        _close_study(plan, lab)
    return plan


def upload_waiting_runs(lab: Lab) -> int:
    """Upload the runs that wait in the lab to the store; return the number that still wait."""
    upload = upload_waiting_folders(lab, tracking_uri(lab))
    if upload.uploaded:
        out.print(f"{upload.uploaded} runs brought to the record from {lab.runs}")
    if upload.waiting:
        text = f"{upload.waiting} runs wait in {lab.runs} ({upload.reason}); then: mhiflab sync"
        out.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)
    return upload.waiting


def _carry_out(
    execute: "Callable[..., Outcome]", plan: Plan, entries: Sequence[Entry], lab: Lab
) -> "Outcome":
    """Print the forecast of some trials, execute them, and print the time they took."""
    started = time.monotonic()
    expected = print_forecast(plan, entries)
    out.print()
    try:
        outcome = execute(plan, entries, expected, lab)
    except KeyboardInterrupt:
        raise StoppedError(
            "stopped; finished trials are on record and the others continue from their last "
            f"saved state: mhiflab run {plan.command}"
        ) from None
    upload_waiting_runs(lab)
    out.print(f"{len(outcome.done)} trials in {time.monotonic() - started:.0f} s\n")
    return outcome


def _close_study(plan: Plan, lab: Lab) -> None:
    """Close a finished study's run and clear its scratch, in case its driver could not."""
    if any(lab.ray.glob("*")):
        with suppress(UserError), only_driver(lab, "clearing"):
            for folder in lab.ray.iterdir():
                shutil.rmtree(folder)
    store = recorded_store(lab)
    if lost := orphans(store, plan.name):
        store = open_store(lab, store.uri)
        note = study_note(plan.study, str(plan.path))
        study_run(store, plan.name, plan.path.read_text(encoding="utf-8"), note)
        out.print(f"{len(lost)} runs hung under the run of study {plan.name}, which was missing")
    parent = find_study(store, plan.name)
    if parent and store.client.get_run(parent).info.status != "FINISHED":
        finish_study(lab, store.uri, plan.name, complete=True)
