"""Tables and figures of papers and of studies as files, made from recorded runs alone.

The file of a study is a paper with one table and its figures.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from rich.markup import escape

from feinfn.errors import UserError
from feinfn.metrics.label import CONVENTION
from mhiflab.console import out
from mhiflab.paths import DEFAULT_LAB, Lab
from mhiflab.plan.plan import Plan, read_plan, reconcile
from mhiflab.plan.search import check_complete
from mhiflab.record.archive import data_access_of, opened_store
from mhiflab.record.artifacts import FUSED, NotArchivedError, group_means
from mhiflab.record.database.errors import without_passwords
from mhiflab.record.store import Store, open_store, tracking_uri
from mhiflab.record.studies import describe_study, study_note
from mhiflab.render.runs import collect
from mhiflab.render.tables.formats import formatted, print_table, write_table
from mhiflab.render.tables.published import QuotedRow, read_published
from mhiflab.render.tables.table import Block, Table
from mhiflab.study.read import read_paper
from mhiflab.study.schema import Cost, Paper, PaperFigure, studies_of
from mhiflab.study.spec import ON_DISK, DataAccess
from mhiflab.study.yaml_values import build

ALL = "all"
"""Name for all kinds of figures."""


def checked_paper(path: Path) -> Paper:
    """Read a paper or a study; raise `UserError` if the file or a figure's option is invalid."""
    paper = read_paper(path)
    if paper.figures:
        # Not above, here and below: figures load matplotlib, and those of networks torch.
        from mhiflab.render.figures.registry import find_kind
    for name, part in paper.figures.items():
        try:
            build(find_kind(part.kind), part.options, "options")
        except UserError as error:
            raise UserError(f"{path}: figures.{name}: {error}") from None
    return paper


def with_tables(
    paper: Paper, names: Sequence[str], conventions: Sequence[str], costs: bool
) -> Paper:
    """Return the paper with only these tables, by default all, in each of some conventions.

    `costs` adds all columns of costs.
    """
    tables = {name: paper.tables[name] for name in paper.chosen(names, paper.tables)}
    if costs:
        tables = {name: replace(one, costs=list(get_args(Cost))) for name, one in tables.items()}
    if conventions:
        tables = {
            name + _suffix(convention): replace(table, convention=convention)
            for name, table in tables.items()
            for convention in conventions
        }
    return replace(paper, tables=tables)


def _suffix(convention: str) -> str:
    return "" if convention == CONVENTION else f"-{convention}"


def with_figures(paper: Paper, names: Sequence[str], kind: str, options: dict[str, Any]) -> Paper:
    """Return the paper with only these figures, by default all, or with those of a kind.

    Raises `UserError` if a kind is asked for and the paper has several studies.
    """
    if not kind and not options:
        chosen = paper.chosen(names, paper.figures)
        return replace(paper, figures={name: paper.figures[name] for name in chosen})
    studies = {study for part in paper.parts.values() for study in studies_of(part)}
    if names or not kind or len(studies) > 1 or (kind == ALL and options):
        raise UserError(
            f"{paper.path}: found {len(studies)} studies with --kind {kind or 'left out'}"
            f"{''.join(f' --name {name}' for name in names)}"
            f"{''.join(f' --option {key}' for key in options)}, expected --name, or for a single "
            f"study --kind, with --option unless it is {ALL}; leave the others out"
        )
    from mhiflab.render.figures.registry import KINDS, find_kind

    kinds = [*KINDS] if kind == ALL else [kind]
    if kind != ALL:
        find_kind(kind)
    (study,) = studies
    figures = {x: PaperFigure(title=x, study=study, kind=x, options=options) for x in kinds}
    return replace(paper, figures=figures)


@dataclass
class Plans:
    """A paper with the plans of its studies, each compared with the record once."""

    paper: Paper
    smoke: bool
    store: Store
    lab: Lab
    data_access: DataAccess = ON_DISK
    by_file: dict[Path, Plan] = field(default_factory=dict)

    def plan(self, study: str) -> Plan:
        """Return a study's plan, compared with the record."""
        file = self.paper.file(study)
        if file not in self.by_file:
            plan = read_plan(file, self.smoke, self.data_access)
            self.by_file[file] = reconcile(plan, self.store, self.lab)
        return self.by_file[file]


@contextmanager
def opened_plans(paper: Paper, smoke: bool, lab: Lab, record: Path | None) -> Iterator[Plans]:
    """Yield a paper's plans, compared with the lab's record or an archive."""
    with opened_store(record, lab) as store:
        yield Plans(paper, smoke, store, lab, data_access_of(record))


def make_table(plans: Plans, name: str, partial: bool = False) -> Table:
    """Return a table from the record.

    Raises `UserError` if a run is missing and `partial` is false, if a search is not complete, or
    if blocks differ in metrics.
    """
    paper, part = plans.paper, plans.paper.tables[name]
    blocks = []
    for heading, study in part.studies.items():
        plan = plans.plan(study)
        check_complete(plan.searches, plan.command)
        results = collect(plan, part.convention, partial)
        quoted: tuple[QuotedRow, ...] = ()
        # A smoke variant has other images, so that published numbers do not belong beside it.
        if heading in part.published and paper.published and not plans.smoke:
            published = part.published[heading]
            quoted = tuple(read_published(paper.published, published.data, published.ratio))
        title = heading if len(part.studies) > 1 else ""
        blocks.append(Block(results, title, quoted, tuple(part.costs)))
    if len({tuple(block.results.metrics) for block in blocks}) > 1:
        raise UserError(
            f"{paper.path}: tables.{name}: found studies of different metrics, expected one kind; "
            "set its convention or make two tables"
        )
    title = part.title + (" (smoke)" if plans.smoke else "")
    return Table(title, tuple(blocks))


def draw_figure(
    plans: Plans, name: str, folder: Path, formats: Sequence[str], partial: bool = False
) -> list[Path]:
    """Draw one figure of a paper, or with `partial` its finished runs; return its files.

    Without `formats`, in all of them.
    """
    from mhiflab.render.figures.registry import FORMATS, draw

    part = plans.paper.figures[name]
    options = dict(part.options)
    published = options.pop("published", None)
    # As in tables: a smoke variant has other images.
    if published is not None and not plans.smoke:
        options["published"] = str(plans.paper.path.parent / str(published))
    plan = plans.plan(part.study)
    if partial:
        plan = replace(plan, entries=plan.finished)
    return draw(part.kind, options, plan, folder, name, formats or FORMATS)


Files = dict[str, list[Path]]
Failures = Mapping[str, UserError]


def render_parts(
    plans: Plans,
    folder: Path,
    names: Iterable[str],
    partial: bool = False,
    formats: Sequence[str] = (),
    quiet: bool = False,
) -> tuple[Files, Failures]:
    """Write some tables and figures; print the tables if `quiet` is false.

    Returns the files by part, and the errors of the parts that failed.
    """
    files: Files = {}
    failed: dict[str, UserError] = {}
    paper = plans.paper
    for name in names:
        try:
            if name in paper.figures:
                files[name] = draw_figure(plans, name, folder, formats, partial)
                continue
            if paper.study and (plan := plans.plan(paper.path.stem)).searches:
                from mhiflab.render.figures.training.search import write_searches

                files["search"] = write_searches(plan, folder)
            table = make_table(plans, name, partial)
            # The file of a study's table names a convention that is not the usual one.
            unnamed = paper.study and paper.tables[name].convention is None
            suffix = _suffix(table.blocks[0].results.convention) if unnamed else ""
            files[name] = write_table(table, folder, name + suffix)
            if not quiet:
                print_table(table)
        except UserError as error:
            failed[name] = error
            if paper.study and name in paper.tables:
                break
    return files, failed


def render(
    plans: Plans,
    folder: Path,
    names: Iterable[str],
    asked: Collection[str] = (),
    partial: bool = False,
    formats: Sequence[str] = (),
) -> None:
    """Write the tables and figures that the record allows; raise `UserError` for the rest.

    If something was written, a study's figures and those whose data archives do not hold are only
    printed unless they are `asked` for. `formats` are by default PNG for studies, PDF too for
    papers.
    """
    paper = plans.paper
    formats = formats or (("png",) if paper.study else ())
    files, failed = render_parts(plans, folder, names, partial, formats)
    for name, paths in files.items():
        out.print(f"{name:8} " + escape("  ".join(map(str, paths))), soft_wrap=True)
    optional = {
        name: error
        for name, error in failed.items()
        if files and name in paper.figures and name not in asked
        if paper.study or isinstance(error, NotArchivedError)
    }
    for name, error in optional.items():
        out.print(f"[yellow]{name:8} not drawn: {escape(str(error))}[/]", soft_wrap=True)
    raise_failures(paper, {name: e for name, e in failed.items() if name not in optional})
    if plans.store.uri == tracking_uri(plans.lab):
        _print_record(plans.lab)


def describe_plan(plan: Plan, smoke: bool, lab: Lab) -> None:
    """Give a complete study's MLflow run its table as description, and its means as metrics."""
    store = open_store(lab, tracking_uri(lab))
    plans = Plans(checked_paper(plan.path), smoke, store, lab, by_file={plan.path: plan})
    table = make_table(plans, next(iter(plans.paper.tables)))
    results = table.blocks[0].results
    fused = results.images[results.images["method"] == FUSED]
    means = {
        f"test_{metric}/{case}": float(value)
        for case, row in group_means(fused, ["case"], results.metrics).iterrows()
        for metric, value in row.items()
    }
    note = f"{study_note(plan.study, str(plan.path))}\n{formatted(table, '.md')}"
    describe_study(store, plan.name, note, means)


def raise_failures(paper: Paper, failed: Failures) -> None:
    """Raise `UserError` with every reason once; the first alone for a study."""
    reasons: dict[str, list[str]] = {}
    for name, error in failed.items():
        reasons.setdefault(str(error), []).append(name)
    if reasons and paper.study:
        raise UserError(next(iter(reasons)))
    if reasons:
        lines = "".join(f"\n  {', '.join(names)}: {why}" for why, names in reasons.items())
        raise UserError(f"{paper.path}: cannot be made from the record:{lines}")


def _print_record(lab: Lab) -> None:
    """Print where the record is, and the command that shows it."""
    out.print(f"Record   {without_passwords(tracking_uri(lab))}", soft_wrap=True)
    # Under make, the command is in .venv/bin, which may be missing from the PATH.
    words = ["mhiflab"] if shutil.which("mhiflab") else [os.path.relpath(sys.argv[0])]
    if Path(sys.argv[0]).name == "__main__.py":
        words = ["python", "-m", "mhiflab"]
    words += ["ui"] if lab.root == DEFAULT_LAB else ["ui", "--lab", str(lab.root)]
    out.print(f"Browse the runs in MLflow:  [bold]{escape(shlex.join(words))}[/]", soft_wrap=True)
