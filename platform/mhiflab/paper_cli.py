"""What the study commands do with a paper: all of its studies, or those of some tables."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.markdown import Markdown
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.execute.run import StoppedError, execute_study
from mhiflab.figures.registry import draw
from mhiflab.formats import markdown, write_table
from mhiflab.paper import Paper, Plans, chosen, files_of, paper_table, read_paper, study_files
from mhiflab.paths import Lab, study_name
from mhiflab.plan.export import export
from mhiflab.plan.plan import current_plan
from mhiflab.plan.show import print_plan
from mhiflab.record.archive import data_of, runs_of
from mhiflab.record.store import NotArchivedError, recorded_store
from mhiflab.study.yaml_values import is_paper
from mhiflab.study_cli import say_left
from mhiflab.verify import differences


def run_paper(
    path: Path, smoke: bool, lab: Lab, fill: Sequence[str] = (), new_data: bool = False
) -> None:
    """Execute what a paper's studies lack, or those of some parts; then make these parts.

    A study that fails does not end the others. Raises `UserError` for the first that failed.
    """
    paper = read_paper(path)
    parts = chosen(path, paper.parts, fill)
    files = study_files(path, parts)
    failed: list[str] = []
    for place, file in enumerate(files, 1):
        out.rule(f"{place} of {len(files)}: {escape(file.stem)}", align="left")
        try:
            execute_study(str(file), smoke, lab, new_data=new_data)
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
    _write(paper, Plans(path, smoke, recorded_store(lab), lab), parts)


def show_paper(path: Path, smoke: bool, lab: Lab) -> None:
    """Show which runs every study of a paper needs."""
    paper = read_paper(path)
    for file in study_files(path, paper.parts):
        print_plan(current_plan(str(file), smoke, lab))


def table_paper(
    path: Path,
    smoke: bool,
    lab: Lab,
    names: Sequence[str] = (),
    partial: bool = False,
    record: Path | None = None,
) -> None:
    """Print and write a paper's tables (those of `names`, or all) from the record or an archive.

    Raises `UserError` where runs are missing, unless `partial`.
    """
    paper = read_paper(path)
    parts = chosen(path, paper.tables, names)
    with _plans(path, smoke, lab, record) as plans:
        _write(paper, plans, parts, partial)


@contextmanager
def _plans(path: Path, smoke: bool, lab: Lab, record: Path | None) -> Iterator[Plans]:
    """Yield a paper's plans against the lab's record or an archive."""
    with runs_of(record, lab) as store:
        yield Plans(path, smoke, store, lab, data_of(record))


def _write(
    paper: Paper, plans: Plans, parts: Iterable[str], partial: bool = False, leave: bool = False
) -> None:
    """Make what the record allows, print it, and raise `UserError` for the rest.

    With `leave`, what archives do not hold is only told, where anything could be made.
    """
    folder = plans.lab.rendered_of(plans.path, plans.smoke)
    made, failed = render(paper, plans, parts, folder, partial)
    if made:
        written = "  ".join(str(path) for paths in made.values() for path in paths)
        out.print("\nWritten " + escape(written), soft_wrap=True)
    left = _unarchived(failed) if leave and made else {}
    say_left(left)
    _refuse(plans.path, failed, left)


def _unarchived(failed: Mapping[str, UserError]) -> dict[str, UserError]:
    return {name: error for name, error in failed.items() if isinstance(error, NotArchivedError)}


def _refuse(path: Path, failed: Mapping[str, UserError], left: Collection[str] = ()) -> None:
    """Raise `UserError` that tells every reason once, but of parts that are left out."""
    reasons: dict[str, list[str]] = {}
    for name, error in failed.items():
        if name not in left:
            reasons.setdefault(str(error), []).append(name)
    if reasons:
        told = "".join(f"\n  {', '.join(names)}: {why}" for why, names in reasons.items())
        raise UserError(f"{path}: cannot be made from the record:{told}")


def render(
    paper: Paper,
    plans: Plans,
    parts: Iterable[str],
    folder: Path,
    partial: bool = False,
    quiet: bool = False,
) -> tuple[dict[str, list[Path]], dict[str, UserError]]:
    """Write some of a paper's tables and figures; print tables unless `quiet`.

    Returns their files, and why the others have none.
    """
    made: dict[str, list[Path]] = {}
    failed: dict[str, UserError] = {}
    for name in parts:
        try:
            if name in paper.figures:
                made[name] = draw_figure(paper, name, plans, folder)
            else:
                table = paper_table(paper, name, plans, partial)
                made[name] = write_table(table, folder, name)
                if not quiet:
                    out.print(Markdown(markdown(table)))
        except UserError as error:
            failed[name] = error
    return made, failed


def draw_paper(
    path: Path,
    smoke: bool,
    lab: Lab,
    names: Sequence[str] = (),
    record: Path | None = None,
) -> None:
    """Draw a paper's figures (those of `names`, or all) from the record or an archive.

    Figures of what archives do not hold are told, unless they are named. Raises `UserError` where
    runs are missing, or do not hold what a figure needs.
    """
    paper = read_paper(path)
    parts = chosen(path, paper.figures, names)
    with _plans(path, smoke, lab, record) as plans:
        _write(paper, plans, parts, leave=not names)


def draw_figure(paper: Paper, name: str, plans: Plans, folder: Path) -> list[Path]:
    """Draw one figure of a paper and return its paths."""
    part = paper.figures[name]
    options = dict(part.options)
    if plans.smoke:
        # As in tables: its numbers are of other images.
        options.pop("published", None)
    if "published" in options:
        # Beside the paper, like the file of its tables.
        options["published"] = str(plans.path.parent / str(options["published"]))
    return draw(part.kind, options, plans.recorded(part.study), folder, name)


def verify_paper(
    path: Path, smoke: bool, lab: Lab, rendered: Path | None = None, record: Path | None = None
) -> None:
    """Render a paper anew and compare it with what lies in a folder, cell by cell.

    The runs are the lab's, or those of an archive (`record`), which needs neither scenes nor a
    store; figures of what archives do not hold must lie there, and are told. Raises `UserError`
    that names every difference.
    """
    paper = read_paper(path)
    name = study_name(path, smoke)
    folder = rendered or path.parent / "rendered" / name
    if not folder.is_dir():
        command = f"{path}{' --smoke' if smoke else ''}"
        raise UserError(
            f"{folder}: no such folder of rendered tables and figures; make them with mhiflab "
            f"table {command} and mhiflab figure {command}, then copy {lab.rendered(name)} there "
            "or name that with --rendered"
        )
    with (
        TemporaryDirectory(prefix="mhiflab-") as place,
        _plans(path, smoke, lab, record) as plans,
    ):
        fresh = Path(place)
        parts = paper.parts
        made, failed = render(paper, plans, parts, fresh, quiet=True)
        left = _unarchived(failed)
        _refuse(path, failed, left)
        unseen = {file for name in left for file in files_of(name, parts[name])}
        found = differences(folder, fresh, leave=unseen)
    if found:
        raise UserError(
            f"{folder}: {len(found)} differences from what the recorded runs give:\n  "
            + "\n  ".join(found)
        )
    count = sum(map(len, made.values()))
    told = f"{count} files in {escape(str(folder))} follow from the recorded runs"
    if left:
        figures = "figure" if len(left) == 1 else "figures"
        told += (
            f"; {len(left)} {figures} not checked (their runs' pictures and weights are not in the "
            f"archive): {', '.join(left)}"
        )
    out.print(told, soft_wrap=True)


def export_runs(path: Path, smoke: bool, lab: Lab, folder: Path) -> None:
    """Write the runs of a study or a paper into a folder of small text files."""
    files = [path]
    if is_paper(path):
        files = study_files(path, read_paper(path).parts)
    written = export(files, smoke, recorded_store(lab), lab, folder)
    size = sum(one.stat().st_size for one in written) / 2**20
    out.print(f"{len(written)} runs in {escape(str(folder))}, {size:.1f} MiB", soft_wrap=True)
