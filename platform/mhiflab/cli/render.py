"""Commands that render: table, figure, report, verify, export."""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

from rich.markup import escape
from typer import Option

from feinfn.errors import UserError
from mhiflab.cli import options
from mhiflab.console import out
from mhiflab.paths import DEFAULT_LAB, REPORT_FILE, Lab, check_targets, study_path

TEXTS = ("scene", "case")
"""Options that are names, even if they look like numbers."""

FILES = ("published",)
"""Options that are files; on the command line they are found from the working folder."""


def table(
    paper: options.PaperArgument,
    smoke: options.SmokeOption = False,
    convention: Annotated[
        list[str] | None,
        Option(help="Metric convention (default: matlab). Repeatable: one table each."),
    ] = None,
    name: Annotated[
        list[str] | None, Option(help="Only this table (default: all). Repeatable.")
    ] = None,
    costs: Annotated[
        bool, Option("--costs", help="Add columns of parameters, operations, time and memory.")
    ] = False,
    partial: Annotated[
        bool, Option("--partial", help="Render although runs are missing; mark their rows.")
    ] = False,
    record: options.RecordOption = None,
    lab: options.LabOption = DEFAULT_LAB,
    folder: options.OutOption = None,
) -> None:
    """Render a study or a paper from its recorded runs: Markdown, LaTeX, HTML, CSV and figures.

    A JSON file beside each table names the runs, images, convention and protocol of every number.

    Every number comes from MLflow; scenes are read only to identify the runs. The same runs
    give the same bytes.
    """
    from mhiflab.render.paper import opened_plans, render, with_tables
    from mhiflab.study.read import read_paper

    path = study_path(paper)
    target = folder or Lab(lab).rendered_of(path, smoke)
    check_targets((target / "table.md",))
    chosen = with_tables(read_paper(path), name or (), convention or (), costs)
    parts = [*chosen.tables, *(chosen.figures if chosen.study and not name else ())]
    with opened_plans(chosen, smoke, Lab(lab), record) as plans:
        render(plans, target, parts, name or (), partial)


def _parsed(words: list[str]) -> dict[str, Any]:
    """Return options given as key=value, values in YAML; raise `UserError` for anything else."""
    import yaml

    from mhiflab.study.yaml_values import Loader

    parsed: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals) or key in parsed:
            raise UserError(
                f"--option: found {word!r}, expected key=value, each key once, such as "
                "seed=2 or 'cases=[full, without]'"
            )
        try:
            # S506 guards against unsafe loaders; these two build none but plain values.
            parsed[key] = yaml.load(text, Loader=Loader)  # noqa: S506
            if key in (*TEXTS, *FILES) and parsed[key] is not None:
                parsed[key] = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
            if key in FILES and parsed[key]:
                parsed[key] = str(Path(parsed[key]).absolute())
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--option {key}: found {text!r}, not YAML: {reason}") from None
    return parsed


def figure(
    paper: options.PaperArgument,
    kind: Annotated[
        str,
        Option(
            help="Of a single study: a kind of figure such as fused, curves or spectra, or all."
        ),
    ] = "",
    name: Annotated[
        list[str] | None, Option(help="Only this figure (default: all). Repeatable.")
    ] = None,
    option: Annotated[
        list[str] | None,
        Option(
            help="Option of the kind: key=value, such as seed=2 or 'cases=[full, without]'. "
            "Repeatable."
        ),
    ] = None,
    smoke: options.SmokeOption = False,
    record: options.RecordOption = None,
    lab: options.LabOption = DEFAULT_LAB,
    folder: options.OutOption = None,
    format_: Annotated[
        Literal["png", "pdf", "both"], Option("--format", help="png, pdf or both.")
    ] = "both",
) -> None:
    """Draw figures of a study or a paper from recorded runs: PNG, PDF, and the numbers (CSV).

    Every number comes from artifacts and histories of runs; scenes are read only to identify them.
    `--kind all` draws what the records allow and says why the rest cannot be drawn. An unknown
    option is answered by the list of a kind's options. The same runs give the same bytes.
    """
    from mhiflab.render.figures.registry import FORMATS
    from mhiflab.render.paper import checked_paper, opened_plans, render, with_figures

    path = study_path(paper)
    chosen = with_figures(checked_paper(path), name or (), kind, _parsed(option or []))
    asked = name or [one for one in chosen.figures if one == kind]
    formats = FORMATS if format_ == "both" else (format_,)
    with opened_plans(chosen, smoke, Lab(lab), record) as plans:
        target = folder or Lab(lab).rendered_of(path, smoke)
        render(plans, target, chosen.figures, asked, formats=formats)


def report(
    paper: options.PaperArgument,
    smoke: options.SmokeOption = False,
    out_file: Annotated[
        Path | None,
        Option("--out", help="HTML file to write (default: among the study's rendered files)."),
    ] = None,
    no_log: Annotated[
        bool, Option("--no-log", help="Do not store the page with the studies' MLflow runs.")
    ] = False,
    lab: options.LabOption = DEFAULT_LAB,
) -> None:
    """Write one HTML page: states, results, statistics, figures, spectra and provenance.

    Everything comes from MLflow and is inside the file, which asks no network for anything. The
    same records give the same bytes. Unfinished studies show what there is.
    """
    from feinfn.files import write_bytes
    from mhiflab.plan.plan import plan_refresher
    from mhiflab.record.artifacts import add_artifact
    from mhiflab.record.store import recorded_store
    from mhiflab.record.studies import find_study
    from mhiflab.render.report.page import report_page
    from mhiflab.study.read import read_paper

    content = read_paper(study_path(paper))
    path = out_file or Lab(lab).rendered_of(content.path, smoke) / REPORT_FILE
    check_targets((path,))
    plans = [plan_refresher(file, smoke, Lab(lab))() for file in content.files()]
    store = recorded_store(Lab(lab))
    page = report_page(plans, content.title).encode()
    write_bytes(path, page)
    out.print(f"Report  {path} ({len(page) / 1e6:.1f} MB)", soft_wrap=True)
    for plan in plans if not no_log else ():
        parent = find_study(store, plan.name)
        if parent is None:
            out.print(f"Not stored in MLflow: {plan.name} has no run of its own yet")
            continue
        with tempfile.TemporaryDirectory(prefix="mhiflab-") as place:
            named = Path(place) / REPORT_FILE
            named.write_bytes(page)
            try:
                add_artifact(store, parent, named)
            except UserError as error:
                if out_file is None:
                    raise
                out.print(f"Not stored in MLflow: {escape(str(error))}", soft_wrap=True)
                continue
        out.print(f"Stored as {REPORT_FILE} with the run {parent} of {plan.name}", soft_wrap=True)


def verify(
    paper: options.PaperArgument,
    smoke: options.SmokeOption = False,
    rendered: Annotated[
        Path | None,
        Option(help="Folder to compare with (default: rendered/NAME beside the paper)."),
    ] = None,
    record: options.RecordOption = None,
    lab: options.LabOption = DEFAULT_LAB,
) -> None:
    """Render a study or a paper anew from its runs and name every cell that differs."""
    from mhiflab.render.paper import checked_paper
    from mhiflab.render.verify import verify_paper

    verify_paper(checked_paper(study_path(paper)), smoke, Lab(lab), rendered, record)


def export(
    paper: options.PaperArgument,
    to: Annotated[Path, Option("--out", help="Folder to write into.")],
    smoke: options.SmokeOption = False,
    lab: options.LabOption = DEFAULT_LAB,
) -> None:
    """Write the runs of a study or a paper as small text files: metrics only, to lie beside it.

    `--record` of table, figure and verify makes tables and curves from them without scenes,
    weights or the store they came from.
    """
    from mhiflab.plan.export import export_runs
    from mhiflab.record.archive import DATA_FILE, RUNS
    from mhiflab.record.store import recorded_store

    check_targets((to / DATA_FILE, to / RUNS / "run.json"))
    written = export_runs(options.study_files(paper), smoke, recorded_store(Lab(lab)), Lab(lab), to)
    size = sum(file.stat().st_size for file in written) / 2**20
    out.print(f"{len(written)} runs in {escape(str(to))}, {size:.1f} MiB", soft_wrap=True)
