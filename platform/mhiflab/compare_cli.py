"""The `compare` command: recorded runs side by side; heavy libraries are imported when it runs."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from feinfn.errors import UserError, nearest
from mhiflab.console import out
from mhiflab.paths import HERE, Lab, check_targets
from mhiflab.plan.plan import current_plan
from mhiflab.study_cli import LabOption, SmokeOption

if TYPE_CHECKING:
    from mlflow.entities import Run

    from mhiflab.plan.plan import Entry, Plan
    from mhiflab.record.store import Store


def compare_command(
    runs: Annotated[
        list[str] | None,
        typer.Argument(help="Run keys or their first digits; the first is the baseline."),
    ] = None,
    study: Annotated[str, typer.Option(help="Instead: the finished runs of a study.")] = "",
    case: Annotated[
        list[str] | None,
        typer.Option(
            help="Only this case of the study; repeat for more. The baseline is the study's, where "
            "it is among them, else the first."
        ),
    ] = None,
    seed: Annotated[
        list[int] | None,
        typer.Option(help="Only trainings of this seed of the study; repeat for more."),
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
    from feinfn.files import write_bytes
    from mhiflab.record.finished import chosen_runs, read_run
    from mhiflab.record.store import KEY, recorded_store
    from mhiflab.render.compare import compare_runs
    from mhiflab.render.compare_page import page, print_sections

    if sum(map(bool, (runs, study, filter_))) != 1:
        raise UserError(
            "compare: expected run keys, or --study, or --filter, one of them; name the runs"
        )
    for option, given in (("--case", case), ("--seed", seed)):
        if given and not study:
            names = ", ".join(map(str, given))
            raise UserError(f"{option}: found {names} without --study; name the study")
    if file:
        if file.suffix.lower() not in (".html", ".htm"):
            raise UserError(f"--out: found {str(file)!r}, expected a name ending in .html")
        check_targets((file,))
    folder = Lab(lab)
    store = recorded_store(folder)
    if study:
        found = _of_study(current_plan(study, smoke, folder), case or [], seed or [])
    else:
        found = _filtered(store, filter_) if filter_ else chosen_runs(store, runs or [])
    sections = compare_runs(found, lambda run: read_run(store, run), convention)
    print_sections(sections, out)
    keys = [run.data.tags[KEY][:8] for run in found]
    path = file or folder.rendered(f"compare-{'-'.join(keys)}.html")
    text = page(f"Runs {', '.join(keys)}", sections)
    write_bytes(path, text.encode())
    out.print(f"Report  {escape(str(path))}", soft_wrap=True)


def _of_study(plan: "Plan", cases: list[str], seeds: list[int]) -> "list[Run]":
    """Return the finished runs of a study, of some cases and seeds where they are named.

    First the study's baseline, then cases as they were named, or in the study's order. Raises
    `UserError` for an unknown case or seed, and for more runs than are compared.
    """
    from mhiflab.render.compare import AT_MOST

    known = list(dict.fromkeys(entry.trial.case for entry in plan.entries))
    for case in cases:
        if case not in known:
            raise UserError(f"--case: found {case!r}, expected one of {', '.join(known)}")
    for seed in seeds:
        if seed not in plan.study.seeds:
            names = ", ".join(map(str, plan.study.seeds))
            raise UserError(f"--seed: found {seed}, expected one of {names}")
    base = plan.study.baseline
    order = list(dict.fromkeys(cases)) or known
    # Of a case with axes it is the first point, as in tables.
    order.sort(key=lambda case: base is None or case.split("/")[0] != base)
    wanted = [
        entry
        for case in order
        for entry in plan.entries
        if entry.trial.case == case and (not seeds or _is_of(entry, seeds))
    ]
    if left := [entry.who for entry in wanted if entry.state != "done"]:
        text = f"Left out, because they are not finished: {'; '.join(left)}"
        out.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)
    found = [entry for entry in wanted if entry.state == "done"]
    if len(found) > AT_MOST:
        ways = {
            f"--seed {seed}": sum(_is_of(entry, [seed]) for entry in found)
            for seed in dict.fromkeys(entry.trial.spec.seed for entry in found)
        }
        ways |= {f"--case {c!r}": sum(entry.trial.case == c for entry in found) for c in order}
        told = ", ".join(f"{way} leaves {left}" for way, left in ways.items())
        raise UserError(
            f"compare: found {len(found)} finished runs of {plan.name}, expected 2 to {AT_MOST}, "
            f"which can be told apart: {told}; or compare cases over all seeds: mhiflab table "
            f"{plan.command}"
        )
    return [entry.run for entry in found if entry.run]


def _is_of(entry: "Entry", seeds: list[int]) -> bool:
    # What is not trained has one run for all seeds.
    return entry.trial.spec.seed in seeds or not entry.trial.spec.trained


def _filtered(store: "Store", text: str) -> "list[Run]":
    """Return the finished runs that a filter finds, the oldest first."""
    from mlflow.exceptions import MlflowException

    from mhiflab.record.store import KEY, KIND, is_refusal, search_runs

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
    if len(found) < 2:
        raise UserError(
            f"--filter {text!r}: found {len(found)} finished runs, expected 2 or more; "
            + (_unknown_metrics(store, text) or "ask for less")
        )
    return sorted(found, key=lambda run: (run.info.start_time, run.data.tags[KEY]))


def _unknown_metrics(store: "Store", text: str) -> str:
    """Return in words which metrics that a filter names are those of no run."""
    from mhiflab.record.store import trial_runs

    known = {name for run in trial_runs(store).values() for name in run.data.metrics}
    found = re.findall(r"\bmetrics?\.(?:`([^`]+)`|\"([^\"]+)\"|([\w.]+))", text)
    unknown = dict.fromkeys(name for one in found if (name := "".join(one)) not in known)
    return "; ".join(
        f"no run has a metric {name!r}, {nearest(name, known)}expected one that a run's page in "
        "MLflow lists"
        for name in unknown
    )
