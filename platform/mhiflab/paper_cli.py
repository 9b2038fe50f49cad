"""What the study commands do with a paper: all of its studies, or those of some tables."""

from collections.abc import Sequence
from pathlib import Path

from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.execute.run import StoppedError, execute_study
from mhiflab.paths import Lab
from mhiflab.plan.export import export
from mhiflab.plan.plan import current_plan
from mhiflab.plan.show import print_plan
from mhiflab.record.store import recorded_store
from mhiflab.render.paper import Plans, chosen, read_paper, study_files, write_parts
from mhiflab.study.yaml_values import is_paper


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
    write_parts(paper, Plans(path, smoke, recorded_store(lab), lab), parts)


def show_paper(path: Path, smoke: bool, lab: Lab) -> None:
    """Show which runs every study of a paper needs."""
    paper = read_paper(path)
    for file in study_files(path, paper.parts):
        print_plan(current_plan(str(file), smoke, lab))


def export_runs(path: Path, smoke: bool, lab: Lab, folder: Path) -> None:
    """Write the runs of a study or a paper into a folder of small text files."""
    files = [path]
    if is_paper(path):
        files = study_files(path, read_paper(path).parts)
    written = export(files, smoke, recorded_store(lab), lab, folder)
    size = sum(one.stat().st_size for one in written) / 2**20
    out.print(f"{len(written)} runs in {escape(str(folder))}, {size:.1f} MiB", soft_wrap=True)
