"""Commands that render: table, figure, report, verify, export."""

import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.cli.options import LabOption, PaperArgument, RecordOption, SmokeOption, StudyArgument
from mhiflab.console import out
from mhiflab.paths import DEFAULT_LAB, Lab, check_rendered, check_targets, study_path

REPORT_FILE = "report.html"
ALL = "all"
TEXTS = ("scene", "case")
"""Options that are names, even if they look like numbers."""


def table(
    study: StudyArgument,
    smoke: SmokeOption = False,
    convention: Annotated[
        list[str] | None,
        typer.Option(help="Metric convention (default: matlab). Repeatable: one table each."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option(help="Papers only: this table (default: all). Repeatable.")
    ] = None,
    costs: Annotated[
        bool,
        typer.Option("--costs", help="Add columns of parameters, operations, time and memory."),
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Render although runs are missing; mark their rows.")
    ] = False,
    record: RecordOption = None,
    lab: LabOption = DEFAULT_LAB,
) -> None:
    """Render a study or a paper from its recorded runs: Markdown, LaTeX, HTML, CSV and figures.

    A JSON file beside each table names the runs, images, convention and protocol of every number.

    Every number comes from MLflow; scenes are read only to identify the runs. The same runs
    give the same bytes.
    """
    from mhiflab.plan.plan import plan_with_store
    from mhiflab.render.study import render_study
    from mhiflab.render.tables.rows import COSTS
    from mhiflab.study.yaml_values import is_paper

    folder, path = Lab(lab), study_path(study)
    check_rendered(path, smoke, folder)
    if is_paper(path):
        from mhiflab.render.paper import table_paper

        if convention or costs:
            raise UserError(
                f"--convention, --costs: found with {path}, a paper, expected with a study; a "
                "paper's tables say both in its file"
            )
        table_paper(path, smoke, folder, name or (), partial, record)
        return
    if name:
        raise UserError(f"--name: found with {path}, a study, expected with a paper; leave it out")
    columns = tuple(COSTS) if costs else ()
    with plan_with_store(path, smoke, folder, record) as (plan, store):
        render_study(plan, store, folder, convention or [None], columns, partial)


def _parsed(words: list[str]) -> dict[str, Any]:
    """Return options given as key=value, values in YAML; raise `UserError` for anything else."""
    import yaml

    from mhiflab.study.yaml_values import Loader

    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (key and equals) or key in options:
            raise UserError(
                f"--option: found {word!r}, expected key=value, each key once, such as "
                "seed=2 or 'cases=[full, without]'"
            )
        try:
            # S506 guards against unsafe loaders; these two build none but plain values.
            options[key] = yaml.load(text, Loader=Loader)  # noqa: S506
            if key in TEXTS and options[key] is not None:
                options[key] = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506
        except yaml.YAMLError as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"--option {key}: found {text!r}, not YAML: {reason}") from None
    return options


def figure(
    study: StudyArgument,
    kind: Annotated[
        str | None,
        typer.Option(
            help="Studies only: a kind of figure such as fused, curves or spectra, or all."
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Papers only: this figure (default: all). Repeatable."),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help="Studies only: key=value, such as seed=2 or 'cases=[full, without]'. Repeatable."
        ),
    ] = None,
    smoke: SmokeOption = False,
    record: RecordOption = None,
    lab: LabOption = DEFAULT_LAB,
    folder: Annotated[
        Path | None,
        typer.Option("--out", help="Studies only: folder to write into (default: lab/rendered)."),
    ] = None,
    format_: Annotated[
        Literal["png", "pdf", "both"] | None,
        typer.Option("--format", help="Studies only: png, pdf or both (default)."),
    ] = None,
) -> None:
    """Draw figures of a study or a paper from recorded runs: PNG, PDF, and the numbers (CSV).

    Every number comes from artifacts and histories of runs; scenes are read only to identify them.
    `--kind all` draws what the records allow and says why the rest cannot be drawn. An unknown
    option is answered by the list of a kind's options. The same runs give the same bytes.
    """
    from mhiflab.study.yaml_values import is_paper

    path = study_path(study)
    if is_paper(path):
        from mhiflab.render.paper import draw_paper

        study_only = {"--kind": kind, "--option": option, "--out": folder, "--format": format_}
        if given := [word for word, value in study_only.items() if value]:
            beside = Lab(lab).rendered_of(path, smoke)
            raise UserError(
                f"{', '.join(given)}: found with {path}, a paper, whose file says what is drawn "
                f"and whose figures lie with its tables in {beside}, expected --name or nothing; "
                "leave it out"
            )
        draw_paper(path, smoke, Lab(lab), name or (), record)
        return
    if name or not kind:
        raise UserError(
            f"--name, --kind: {path} is a study, expected --kind without --name, such as --kind "
            "fused, or --kind all"
        )
    options = _parsed(option or [])
    if kind == ALL and options:
        raise UserError(f"--option: found {', '.join(options)}, expected none with --kind all")

    from mhiflab.plan.plan import plan_with_store
    from mhiflab.render.figures.registry import FORMATS, KINDS, draw_each, find_kind
    from mhiflab.render.study import print_undrawn

    kinds = list(KINDS) if kind == ALL else [kind]
    if kind != ALL:
        find_kind(kind)
    formats = FORMATS if format_ in (None, "both") else (format_,)
    with plan_with_store(path, smoke, Lab(lab), record) as (plan, _):
        place = folder or Lab(lab).rendered(plan.name)
        drawn, undrawn = draw_each(kinds, options, plan, place, formats)
    if not drawn:
        raise next(iter(undrawn.values()))
    for kind_drawn, written in drawn.items():
        out.print(f"{kind_drawn:8} " + escape("  ".join(map(str, written))), soft_wrap=True)
    print_undrawn(undrawn)


def report(
    study: StudyArgument,
    smoke: SmokeOption = False,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out", help="HTML file to write (default: among the study's rendered files)."
        ),
    ] = None,
    no_log: Annotated[
        bool, typer.Option("--no-log", help="Do not store the page with the study's MLflow run.")
    ] = False,
    lab: LabOption = DEFAULT_LAB,
) -> None:
    """Write one HTML page: state, results, statistics, figures, spectra and provenance.

    Everything comes from MLflow and is inside the file, which asks no network for anything. The
    same records give the same bytes. An unfinished study shows what there is.
    """
    from feinfn.files import write_bytes
    from mhiflab.plan.plan import plan_refresher
    from mhiflab.record.artifacts import add_artifact
    from mhiflab.record.store import find_study, recorded_store
    from mhiflab.render.report.page import report_page

    folder = Lab(lab)
    path = out_file or folder.rendered_of(study_path(study), smoke) / REPORT_FILE
    check_targets((path,))
    plan = plan_refresher(study, smoke, folder)()
    store = recorded_store(folder)
    page = report_page(plan).encode()
    write_bytes(path, page)
    out.print(f"Report  {path} ({len(page) / 1e6:.1f} MB)", soft_wrap=True)
    if no_log:
        return
    parent = find_study(store, plan.name)
    if parent is None:
        out.print("Not stored in MLflow: this study has no run of its own yet")
        return
    with tempfile.TemporaryDirectory(prefix="mhiflab-") as place:
        named = Path(place) / REPORT_FILE
        named.write_bytes(page)
        add_artifact(store, parent, named)
    out.print(f"Stored as {REPORT_FILE} with the study's run {parent}", soft_wrap=True)


def verify(
    paper: PaperArgument,
    smoke: SmokeOption = False,
    rendered: Annotated[
        Path | None,
        typer.Option(help="Folder to compare with (default: rendered/NAME beside the paper)."),
    ] = None,
    record: RecordOption = None,
    lab: LabOption = DEFAULT_LAB,
) -> None:
    """Render a paper anew from its runs and name every cell that differs from its files."""
    from mhiflab.render.verify import verify_paper

    verify_paper(study_path(paper), smoke, Lab(lab), rendered, record)


def export(
    study: StudyArgument,
    to: Annotated[Path, typer.Option("--out", help="Folder to write into.")],
    smoke: SmokeOption = False,
    lab: LabOption = DEFAULT_LAB,
) -> None:
    """Write the runs of a study or a paper as small text files: metrics only, to lie beside it.

    `--record` of table, figure and verify makes tables and curves from them without scenes,
    weights or the store they came from.
    """
    from mhiflab.plan.export import export_runs
    from mhiflab.record.archive import DATA_FILE, RUNS
    from mhiflab.record.store import recorded_store
    from mhiflab.study.yaml_values import is_paper

    check_targets((to / DATA_FILE, to / RUNS / "run.json"))
    files = [study_path(study)]
    if is_paper(files[0]):
        from mhiflab.render.paper import read_paper, study_files

        files = study_files(files[0], read_paper(files[0]).parts)
    written = export_runs(files, smoke, recorded_store(Lab(lab)), Lab(lab), to)
    size = sum(file.stat().st_size for file in written) / 2**20
    out.print(f"{len(written)} runs in {escape(str(to))}, {size:.1f} MiB", soft_wrap=True)
