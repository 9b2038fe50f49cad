"""Commands that look closer: compare, robustness, describe."""

from pathlib import Path
from typing import Annotated

from rich.markup import escape
from typer import Argument, Option

from feinfn.errors import UserError
from mhiflab.cli import options
from mhiflab.console import out
from mhiflab.paths import DEFAULT_LAB, Lab, check_targets, study_path

CHOSEN = {"option cases": "--case", "option seed": "--seed"}
"""Options that choose a study's runs, by the names of those of figures."""


@options.named_by_option(**CHOSEN)
def compare(
    runs: Annotated[
        list[str] | None,
        Argument(help="Run keys or their first digits; the first is the baseline."),
    ] = None,
    study: Annotated[str, Option(help="Compare the finished runs of this study instead.")] = "",
    case: Annotated[
        list[str] | None,
        Option(
            help="Only this case of the study. Repeatable. The baseline is the study's if it is "
            "among them, else the first."
        ),
    ] = None,
    seed: Annotated[
        list[int] | None, Option(help="Only this seed of the study. Repeatable.")
    ] = None,
    smoke: options.SmokeOption = False,
    filter_: Annotated[
        str,
        Option("--filter", help="Compare the finished runs that an MLflow filter finds instead."),
    ] = "",
    convention: Annotated[str | None, Option(help="Metric convention (default: matlab).")] = None,
    file: Annotated[
        Path | None,
        Option("--out", metavar="FILE.html", help="Report to write (default: in LAB/rendered)."),
    ] = None,
    lab: options.LabOption = DEFAULT_LAB,
) -> None:
    """Show what differs between runs: settings, code, data, metrics image by image, and curves.

    Everything comes from MLflow. The report is one HTML file that needs no network; the same runs
    give the same bytes.
    """
    from feinfn.files import write_bytes
    from mhiflab.plan.plan import plan_refresher
    from mhiflab.record.finished import chosen_runs
    from mhiflab.record.store import recorded_store
    from mhiflab.render.choose import runs_of_filter, runs_of_study
    from mhiflab.render.compare import compare_runs
    from mhiflab.render.compare_page import print_sections
    from mhiflab.render.pages import page

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
        plan = plan_refresher(study_path(study), smoke, folder)()
        chosen = runs_of_study(plan, case or [], seed or [])
    else:
        chosen = runs_of_filter(store, filter_) if filter_ else chosen_runs(store, runs or [])
    sections = compare_runs(chosen, convention)
    print_sections(sections)
    keys = [run.key[:8] for run in chosen]
    path = file or folder.rendered(f"compare-{'-'.join(keys)}.html")
    text = page("compare.html", f"Runs {', '.join(keys)}", sections=sections)
    write_bytes(path, text.encode())
    out.print(f"Report  {escape(str(path))}", soft_wrap=True)


@options.named_by_option(sigma_factors="--sigma", srf="--srf", snrs_db="--snr", **CHOSEN)
def robustness(
    study: options.StudyArgument,
    case: Annotated[str, Option(help="Only this case of the study (default: all).")] = "",
    sigma: Annotated[
        list[float] | None, Option(help="PSF width as a multiple of the protocol's. Repeatable.")
    ] = None,
    srf: Annotated[list[str] | None, Option(help="Further response table. Repeatable.")] = None,
    snr: Annotated[
        list[float] | None, Option(help="Signal-to-noise ratio in dB. Repeatable.")
    ] = None,
    lab: options.LabOption = DEFAULT_LAB,
) -> None:
    """Evaluate a study's finished runs off their protocol: PSF x SRF x noise.

    Only cells that are not on record are computed; table and picture become artifacts of each run.
    """
    from mhiflab.execute.robustness import Grid, check_evaluable, evaluate_grid
    from mhiflab.plan.plan import plan_refresher
    from mhiflab.render.figures.images.robustness import cell_means, record_picture
    from mhiflab.render.runs import chosen_entries
    from mhiflab.render.tables.table import frame_grid

    folder = Lab(lab)
    grid = Grid(tuple(sigma or Grid.sigma_factors), tuple(srf or ()), tuple(snr or Grid.snrs_db))
    plan = plan_refresher(study_path(study), False, folder)()
    entries = chosen_entries(plan, [case] if case else [])
    for entry in entries:
        check_evaluable(entry)
    for entry in plan.complete(entries):
        scores = evaluate_grid(entry, folder, grid, out)
        path = record_picture(entry, scores, folder)
        out.print(frame_grid(cell_means(scores), entry.who))
        out.print(f"Picture  {path}", soft_wrap=True)


def describe(paper: options.PaperArgument) -> None:
    """Show the cost of each network of a study or a paper: parameters and operations by module."""
    from mhiflab.plan.costs import cost_tables

    for file in options.study_files(paper):
        for panel in cost_tables(file):
            out.print(panel)
