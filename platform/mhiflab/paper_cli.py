"""What the study commands do with a paper: all of its studies, or those of some tables."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.archive import archived_store, export, known_data
from mhiflab.figures.registry import draw
from mhiflab.formats import markdown, write_table
from mhiflab.paper import (
    Paper,
    Plans,
    chosen,
    paper_folder,
    paper_table,
    read_paper,
    study_files,
)
from mhiflab.paths import Lab
from mhiflab.reading import is_paper
from mhiflab.study_cli import StoppedError, execute_study, read, show
from mhiflab.tracking import recorded_store
from mhiflab.verify import differences

out = Console(highlight=False)


def run_paper(
    path: Path, smoke: bool, lab: Lab, fill: Sequence[str] = (), new_data: bool = False
) -> None:
    """Execute what a paper's studies lack, or those of some tables and figures; then its tables.

    A study that fails does not end the others. Raises `UserError` for the first that failed.
    """
    paper = read_paper(path)
    parts = chosen(path, paper, fill)
    files = study_files(path, parts)
    failed: list[str] = []
    for place, file in enumerate(files, 1):
        out.rule(f"{place} of {len(files)}: {escape(file.stem)}", align="left")
        try:
            execute_study(str(file), smoke, lab, new_data)
        except StoppedError:
            raise
        except UserError as error:
            failed.append(f"{file.stem}: {error}")
            out.print(f"[red]failed[/] {escape(failed[-1])}", soft_wrap=True)
    if failed:
        raise UserError(
            f"{len(failed)} of {len(files)} studies are not complete, the others are on record; "
            f"first: {failed[0]}"
        )
    plans = Plans(path, smoke, recorded_store(lab), lab)
    _write_tables(paper, plans, parts)
    _write_figures(paper, plans, parts)


def show_paper(path: Path, smoke: bool, lab: Lab) -> None:
    """Show which runs every study of a paper needs."""
    paper = read_paper(path)
    for file in study_files(path, chosen(path, paper, ())):
        show(read(str(file), smoke, lab))


def table_paper(
    path: Path, smoke: bool, lab: Lab, names: Sequence[str] = (), partial: bool = False
) -> None:
    """Print and write a paper's tables (those of `names`, or all) from the record.

    Raises `UserError` where runs are missing, unless `partial`.
    """
    paper = read_paper(path)
    parts = chosen(path, paper, names)
    _write_tables(paper, Plans(path, smoke, recorded_store(lab), lab), parts, partial)


def _write_tables(paper: Paper, plans: Plans, parts: Iterable[str], partial: bool = False) -> None:
    folder = paper_folder(plans.path, plans.smoke, plans.lab)
    written = render_tables(paper, plans, parts, folder, partial)
    out.print("\nWritten " + "  ".join(map(str, written)), soft_wrap=True)


def render_tables(
    paper: Paper,
    plans: Plans,
    parts: Iterable[str],
    folder: Path,
    partial: bool = False,
    quiet: bool = False,
) -> list[Path]:
    """Write those of a paper's parts that are tables, print them unless `quiet`; return paths."""
    written: list[Path] = []
    for name in parts:
        if name in paper.tables:
            table = paper_table(paper, name, plans, partial)
            written += write_table(table, folder, name)
            if not quiet:
                out.print(Markdown(markdown(table)))
    return written


def draw_paper(path: Path, smoke: bool, lab: Lab, names: Sequence[str] = ()) -> None:
    """Draw a paper's figures (those of `names`, or all) from the record.

    Raises `UserError` where runs are missing, or do not hold what a figure needs.
    """
    paper = read_paper(path)
    parts = chosen(path, paper, names)
    _write_figures(paper, Plans(path, smoke, recorded_store(lab), lab), parts)


def _write_figures(paper: Paper, plans: Plans, parts: Iterable[str]) -> None:
    folder = paper_folder(plans.path, plans.smoke, plans.lab)
    for name in parts:
        if name in paper.figures:
            written = draw_figure(paper, name, plans, folder)
            out.print(f"{name:8} " + escape("  ".join(map(str, written))), soft_wrap=True)


def draw_figure(paper: Paper, name: str, plans: Plans, folder: Path) -> list[Path]:
    """Draw one figure of a paper and return its paths."""
    part = paper.figures[name]
    options = dict(part.options)
    if "published" in options:
        # Beside the paper, like the file of its tables.
        options["published"] = str(plans.path.parent / str(options["published"]))
    return draw(part.kind, options, plans.recorded(part.study), folder, name)


def verify_paper(
    path: Path, smoke: bool, lab: Lab, rendered: Path | None = None, record: Path | None = None
) -> None:
    """Render a paper anew and compare it with what lies in a folder, cell by cell.

    The runs are the lab's, or those of an archive (`record`), which needs neither scenes nor a
    store. Raises `UserError` that names every difference.
    """
    paper = read_paper(path)
    folder = rendered or path.parent / "rendered" / path.stem
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder of rendered tables; give one with --rendered, or make it: "
            f"mhiflab table {path}"
        )
    with TemporaryDirectory(prefix="mhiflab-") as place:
        if record is None:
            plans = Plans(path, smoke, recorded_store(lab), lab)
        else:
            here = Lab(Path(place) / "lab")
            plans = Plans(path, smoke, archived_store(record, here), here, known_data(record))
        fresh = Path(place) / "rendered"
        written = render_tables(paper, plans, paper.tables, fresh, quiet=True)
        left: dict[str, str] = {}
        for name in paper.figures:
            try:
                written += draw_figure(paper, name, plans, fresh)
            except UserError as error:
                if record is None:
                    raise
                left[name] = str(error)
        found = differences(folder, fresh, leave=left)
    for name, why in left.items():
        out.print(f"[yellow]{name} not checked: {escape(why)}[/]", soft_wrap=True)
    if found:
        raise UserError(
            f"{folder}: {len(found)} differences from what the recorded runs give:\n  "
            + "\n  ".join(found)
        )
    out.print(f"{len(written)} files in {escape(str(folder))} follow from the recorded runs")


def export_runs(path: Path, smoke: bool, lab: Lab, folder: Path) -> None:
    """Write the runs of a study or a paper into a folder of small text files."""
    files = [path]
    if is_paper(path):
        files = study_files(path, chosen(path, read_paper(path), ()))
    written = export(files, smoke, recorded_store(lab), lab, folder)
    size = sum(one.stat().st_size for one in written) / 2**20
    out.print(f"{len(written)} runs in {escape(str(folder))}, {size:.1f} MiB", soft_wrap=True)
