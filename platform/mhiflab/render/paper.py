"""Papers: tables and figures by name, each made from studies."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.markdown import Markdown
from rich.markup import escape

from feinfn.errors import UserError, nearest
from feinfn.fields import Settings
from mhiflab.console import out
from mhiflab.paths import Lab
from mhiflab.plan.plan import Plan, read_plan, reconcile
from mhiflab.record.archive import data_access_of, opened_store
from mhiflab.record.artifacts import NotArchivedError
from mhiflab.record.store import Store
from mhiflab.render.figures.registry import FORMATS, draw, find_kind
from mhiflab.render.runs import collect
from mhiflab.render.study import print_undrawn
from mhiflab.render.tables.formats import markdown, write_table
from mhiflab.render.tables.published import QuotedRow, read_published
from mhiflab.render.tables.table import Block, Table
from mhiflab.study.spec import ON_DISK, DataAccess
from mhiflab.study.yaml_values import build, check_file, check_line, read_yaml

TABLE_ENDS = (".md", ".tex", ".csv", ".html", ".json", "-statistics.csv")
FIGURE_ENDS = (*(f".{suffix}" for suffix in FORMATS), ".csv")
"""Ends of file names after a table's or figure's name."""

Cost = Literal["parameters", "flops", "seconds", "memory"]


@dataclass(frozen=True, kw_only=True)
class Published(Settings):
    """Published numbers to quote below a table."""

    data: str
    """Name of the data set in the file of published values."""
    ratio: int


@dataclass(frozen=True, kw_only=True)
class PaperTable(Settings):
    """One table of a paper."""

    title: str
    """Caption."""
    studies: dict[str, str]
    """Heading and study of each block. A study is a file beside the paper's, without .yaml. The
    heading of a single study is not printed."""
    costs: list[Cost] = field(default_factory=list)
    """Columns beside the metrics."""
    published: dict[str, Published] = field(default_factory=dict)
    """Published numbers quoted below our own rows, by heading."""
    convention: str | None = None
    """Metric convention; null: the usual one."""


@dataclass(frozen=True, kw_only=True)
class PaperFigure(Settings):
    """One figure of a paper."""

    title: str
    """Title, which says what the figure shows."""
    study: str
    """Study whose runs it shows: a file beside the paper's, without .yaml."""
    kind: str
    """Kind of figure."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of its kind."""


Part = PaperTable | PaperFigure


@dataclass(frozen=True, kw_only=True)
class Paper(Settings):
    """A paper's file; `name` is the file's stem."""

    title: str
    published: str | None = None
    """File of published values, beside the paper's file."""
    tables: dict[str, PaperTable] = field(default_factory=dict)
    figures: dict[str, PaperFigure] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, Part]:
        """Tables and figures by name."""
        return {**self.tables, **self.figures}


def read_paper(path: Path) -> Paper:
    """Read a paper's file; raise `UserError` with file, key and remedy if it is invalid."""
    check_file(path)
    value = read_yaml(path)
    if {"base", "cases"} & value.keys():
        raise UserError(f"{path}: found a study, expected a paper, which has tables and figures")
    paper: Paper = build(Paper, value, str(path))
    check_line(paper.title, f"{path}: title")
    # Some file systems ignore case, so names must differ in more than case.
    owners = {"readme.md": "a folder's own text"}
    for kind, parts in (("tables", paper.tables), ("figures", paper.figures)):
        for name, part in parts.items():
            if not name.replace("_", "").replace("-", "").isalnum():
                raise UserError(
                    f"{path}: {kind}: found {name!r}, expected letters, digits, - and _, because "
                    "files are named after it"
                )
            check_line(part.title, f"{path}: {kind}.{name}.title")
            for file in files_of(name, part):
                owner = owners.setdefault(file.casefold(), f"{kind}.{name}")
                if owner != f"{kind}.{name}":
                    raise UserError(
                        f"{path}: {kind}: found {name!r}, whose file {file} would be that of "
                        f"{owner} too, expected another name"
                    )
            for study in studies_of(part):
                if not study_file(path, study).is_file():
                    raise UserError(
                        f"{path}: {kind}.{name}: found study {study!r}, expected a file "
                        f"{study_file(path, study)}"
                    )
            if isinstance(part, PaperTable):
                for heading in part.studies:
                    check_line(heading, f"{path}: {kind}.{name}.studies: heading")
                _check_quoted(f"{path}: tables.{name}.published", part, paper)
            else:
                _check_figure(f"{path}: figures.{name}", part)
    return paper


def _check_figure(where: str, part: PaperFigure) -> None:
    try:
        build(find_kind(part.kind).options, part.options, "options")
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _check_quoted(where: str, part: PaperTable, paper: Paper) -> None:
    if part.published and not paper.published:
        raise UserError(f"{where}: found no file of values; name one in the paper's key published")
    for heading in part.published:
        if heading not in part.studies:
            raise UserError(
                f"{where}: found {heading!r}, {nearest(heading, part.studies)}expected headings of "
                "the table's studies: " + ", ".join(part.studies)
            )


def studies_of(part: Part) -> list[str]:
    """Return the names of the studies of a table or figure."""
    return list(part.studies.values()) if isinstance(part, PaperTable) else [part.study]


def files_of(name: str, part: Part) -> list[str]:
    """Return the names of all files that a table or figure may have."""
    ends = TABLE_ENDS if isinstance(part, PaperTable) else FIGURE_ENDS
    return [name + end for end in ends]


def study_file(paper: Path, study: str) -> Path:
    """Return the file of a paper's study."""
    return paper.parent / f"{study}.yaml"


def chosen_parts(path: Path, parts: Mapping[str, Part], names: Iterable[str]) -> Mapping[str, Part]:
    """Return a paper's parts of these names, or all; raise `UserError` if a name is unknown."""
    for name in names:
        if name not in parts:
            raise UserError(
                f"{path}: found no {name!r}, {nearest(name, parts)}expected one of "
                + ", ".join(parts)
            )
    return {name: parts[name] for name in names} or parts


def study_files(path: Path, parts: Mapping[str, Part]) -> list[Path]:
    """Return the files of all studies of some tables and figures, each once."""
    names = [study for part in parts.values() for study in studies_of(part)]
    return [study_file(path, name) for name in dict.fromkeys(names)]


@dataclass
class Plans:
    """Plans of a paper's studies, each compared with the record once."""

    path: Path
    smoke: bool
    store: Store
    lab: Lab
    data_access: DataAccess = ON_DISK
    _plans: dict[str, Plan] = field(default_factory=dict)

    def plan(self, study: str) -> Plan:
        """Return a study's plan, compared with the record."""
        if study not in self._plans:
            plan = read_plan(study_file(self.path, study), self.smoke, self.data_access)
            self._plans[study] = reconcile(plan, self.store, self.lab)
        return self._plans[study]


def paper_table(paper: Paper, name: str, plans: Plans, partial: bool = False) -> Table:
    """Return a table of a paper from the record.

    Raises `UserError` if a run is missing and `partial` is false, or if blocks differ in metrics.
    """
    part = paper.tables[name]
    blocks = []
    for heading, study in part.studies.items():
        plan = plans.plan(study)
        title = heading if len(part.studies) > 1 else ""
        results = collect(plan, part.convention, partial)
        quoted: tuple[QuotedRow, ...] = ()
        # A smoke variant has other images, so that published numbers do not belong beside it.
        if heading in part.published and not plans.smoke:
            assert paper.published is not None, "a paper with quoted rows was read with their file"
            published = part.published[heading]
            file = plans.path.parent / paper.published
            quoted = tuple(read_published(file, published.data, published.ratio))
        blocks.append(Block(results, title, plan.study.baseline or "", quoted))
    if len({tuple(block.results.metrics) for block in blocks}) > 1:
        raise UserError(
            f"{plans.path}: tables.{name}: found studies of different metrics, expected one kind; "
            "set its convention or make two tables"
        )
    suffix = " (smoke)" if plans.smoke else ""
    return Table(part.title + suffix, tuple(blocks), tuple(part.costs))


def table_paper(
    path: Path,
    smoke: bool,
    lab: Lab,
    names: Sequence[str] = (),
    partial: bool = False,
    record: Path | None = None,
) -> None:
    """Print and write a paper's tables (those in `names`, or all) from the record or an archive.

    Raises `UserError` if a run is missing and `partial` is false.
    """
    paper = read_paper(path)
    parts = chosen_parts(path, paper.tables, names)
    with paper_plans(path, smoke, lab, record) as plans:
        write_parts(paper, plans, parts, partial)


@contextmanager
def paper_plans(path: Path, smoke: bool, lab: Lab, record: Path | None) -> Iterator[Plans]:
    """Yield a paper's plans, compared with the lab's record or an archive."""
    with opened_store(record, lab) as store:
        yield Plans(path, smoke, store, lab, data_access_of(record))


def write_parts(
    paper: Paper, plans: Plans, parts: Iterable[str], partial: bool = False, leave: bool = False
) -> None:
    """Write the tables and figures that the record allows; raise `UserError` for the rest.

    With `leave`, figures whose data archives do not hold are only printed if others were written.
    """
    folder = plans.lab.rendered_of(plans.path, plans.smoke)
    files, failed = render_parts(paper, plans, parts, folder, partial)
    if files:
        written = "  ".join(str(path) for paths in files.values() for path in paths)
        out.print("\nWritten " + escape(written), soft_wrap=True)
    skipped = not_archived(failed) if leave and files else {}
    print_undrawn(skipped)
    raise_failures(plans.path, failed, skipped)


def not_archived(failed: Mapping[str, UserError]) -> dict[str, UserError]:
    """Return the failures of parts whose data archives do not hold."""
    return {name: error for name, error in failed.items() if isinstance(error, NotArchivedError)}


def raise_failures(
    path: Path, failed: Mapping[str, UserError], skipped: Collection[str] = ()
) -> None:
    """Raise `UserError` with every reason once, except for the parts in `skipped`."""
    reasons: dict[str, list[str]] = {}
    for name, error in failed.items():
        if name not in skipped:
            reasons.setdefault(str(error), []).append(name)
    if reasons:
        lines = "".join(f"\n  {', '.join(names)}: {why}" for why, names in reasons.items())
        raise UserError(f"{path}: cannot be made from the record:{lines}")


def render_parts(
    paper: Paper,
    plans: Plans,
    parts: Iterable[str],
    folder: Path,
    partial: bool = False,
    quiet: bool = False,
) -> tuple[dict[str, list[Path]], dict[str, UserError]]:
    """Write some of a paper's tables and figures; print the tables if `quiet` is false.

    Returns the files by part, and the errors of the parts that failed.
    """
    files: dict[str, list[Path]] = {}
    failed: dict[str, UserError] = {}
    for name in parts:
        try:
            if name in paper.figures:
                files[name] = draw_figure(paper, name, plans, folder)
            else:
                table = paper_table(paper, name, plans, partial)
                files[name] = write_table(table, folder, name)
                if not quiet:
                    out.print(Markdown(markdown(table)))
        except UserError as error:
            failed[name] = error
    return files, failed


def draw_paper(
    path: Path,
    smoke: bool,
    lab: Lab,
    names: Sequence[str] = (),
    record: Path | None = None,
) -> None:
    """Draw a paper's figures (those in `names`, or all) from the record or an archive.

    Without `names`, figures whose data archives do not hold are only listed. Raises `UserError` if
    a run is missing or lacks the data of a figure.
    """
    paper = read_paper(path)
    parts = chosen_parts(path, paper.figures, names)
    with paper_plans(path, smoke, lab, record) as plans:
        write_parts(paper, plans, parts, leave=not names)


def draw_figure(paper: Paper, name: str, plans: Plans, folder: Path) -> list[Path]:
    """Draw one figure of a paper; return the paths of its files."""
    part = paper.figures[name]
    options = dict(part.options)
    if plans.smoke:
        # As in tables: a smoke variant has other images.
        options.pop("published", None)
    if "published" in options:
        # The file lies beside the paper, like that of its tables.
        options["published"] = str(plans.path.parent / str(options["published"]))
    return draw(part.kind, options, plans.plan(part.study), folder, name)
