"""Fields of the files of studies and papers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from os.path import normpath
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from feinfn.errors import require_one_of
from feinfn.fields import Count, Items, Natural, Positive, Settings
from mhiflab.study.search import Search

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.+=-]*")
"""Pattern of studies' and cases' names, which become names of folders, files and tags."""


Different = Annotated[list[Any], Items(distinct=True)]


@dataclass(frozen=True, kw_only=True)
class Case(Settings):
    """Named variation of the base."""

    label: str
    """Name of its row in tables and figures."""
    set: dict[str, Any] = field(default_factory=dict)
    """Dotted keys of the base and their values, such as `model.fourier_branch: false`."""
    first_seed: dict[str, Any] = field(default_factory=dict)
    """Resources of the first seed alone, at every point of the axes, such as `workers: 2`. The
    smoke variant leaves them out, and so does a study that is based on this case."""
    match_parameters: str | None = None
    """Another case, whose parameter count this one takes: model.feat_dim and model.guide_dim (set
    equal) are solved for."""
    start: str | None = None
    """Untrained case, or `upsampled`, at which this training begins; a sentence under the table
    says how far it came."""


@dataclass(frozen=True, kw_only=True)
class Retry(Settings, section="retry"):
    """Failures that one `run` tries again by itself; all others wait for `mhiflab retry`."""

    lost: Natural = 3
    """Times that a trial continues elsewhere after it lost its process, worker or node."""
    oom: Literal["fail", "accumulate"] = "fail"
    """accumulate: if a GPU runs out of memory, take the same batch in twice as many parts."""


@dataclass(frozen=True, kw_only=True)
class Stop(Settings, section="stop"):
    """Limits after which a `run` ends early; the next `run` continues its trials."""

    hours: Positive | None = None
    """Hours after which running trials are interrupted."""
    failures: Count | None = None
    """Failed trials after which no other starts."""


@dataclass(frozen=True, kw_only=True)
class Smoke(Settings):
    """Changes of the study's smoke variant beyond the usual reductions."""

    set: dict[str, Any] = field(default_factory=dict)
    """Dotted keys and their values, which override everything else."""
    cases: list[str] | None = None
    """Cases to try; null: all."""
    axes: dict[str, list[Any]] | None = None
    """Axes that replace the study's; null: the first and last value of each."""


@dataclass(frozen=True, kw_only=True)
class Study(Settings):
    """Content of a study file."""

    title: str
    """One line for consoles and table captions."""
    base: dict[str, Any] = field(default_factory=dict)
    """Settings that all trials share: keys of model, data, protocol, train and resources. They
    override those of `from: NAME` (a study, or a file with such settings) or `from: NAME/CASE`."""
    cases: dict[str, Case] = field(default_factory=dict)
    """Named variations, in the order of table rows."""
    axes: dict[str, Different] = field(default_factory=dict)
    """Dotted keys and their values; every case runs at every combination."""
    seeds: Annotated[list[Natural], Items(distinct=True)] = field(default_factory=lambda: [1])
    """Seeds of every case."""
    search: Search | None = None
    """Search around every case, trained with the first seed."""
    baseline: str | None = None
    """Case that all others are compared with, at its first point of the axes; null: the first."""
    retry: Retry = field(default_factory=Retry)
    """Failures that a run tries again by itself."""
    stop: Stop = field(default_factory=Stop)
    """Limits after which a run ends early."""
    smoke: Smoke = field(default_factory=Smoke)
    """Changes of the smoke variant (`--smoke`): a minute on two cores, on the embedded sample."""


class SmokeVariant(Study):
    """Study whose every trial is reduced, then changed by `smoke.set`."""


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

    ENDS: ClassVar = (".md", ".tex", ".csv", ".html", ".json", "-statistics.csv")
    """Ends of file names after the table's name."""

    title: str
    """Caption."""
    studies: dict[str, str]
    """Heading and study of each block. A study is a file, without .yaml, relative to the paper's.
    The heading of a single study is not printed."""
    costs: list[Cost] = field(default_factory=list)
    """Columns beside the metrics."""
    published: dict[str, Published] = field(default_factory=dict)
    """Published numbers quoted below our own rows, by heading."""
    convention: str | None = None
    """Metric convention; null: the usual one."""


@dataclass(frozen=True, kw_only=True)
class PaperFigure(Settings):
    """One figure of a paper."""

    ENDS: ClassVar = (".png", ".pdf", ".csv")
    """Ends of file names after the figure's name."""

    title: str
    """Title, which says what the figure shows."""
    study: str
    """Study whose runs it shows: a file, without .yaml, relative to the paper's."""
    kind: str
    """Kind of figure."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of its kind."""


@dataclass(frozen=True, kw_only=True)
class PaperFile(Settings):
    """Content of a paper's file."""

    title: str
    published: str | None = None
    """File of published values, beside the paper's file."""
    tables: dict[str, PaperTable] = field(default_factory=dict)
    figures: dict[str, PaperFigure] = field(default_factory=dict)


Part = PaperTable | PaperFigure


@dataclass(frozen=True)
class Paper:
    """Tables and figures made from studies; a study is a paper with one table and its figures."""

    path: Path
    title: str
    tables: Mapping[str, PaperTable]
    figures: Mapping[str, PaperFigure]
    published: Path | None = None
    """File of published values."""
    study: bool = False
    """True for the file of a study."""

    @property
    def parts(self) -> Mapping[str, Part]:
        """Tables and figures by name."""
        return {**self.tables, **self.figures}

    def file(self, study: str) -> Path:
        """Return the file of one of its studies."""
        return self.path if self.study else Path(normpath(self.path.parent / f"{study}.yaml"))

    def files(self, names: Iterable[str] = ()) -> list[Path]:
        """Return the files of the studies of some parts, by default of all, each once."""
        studies = [study for name in names or self.parts for study in studies_of(self.parts[name])]
        return [self.file(study) for study in dict.fromkeys(studies)]

    def chosen(self, names: Iterable[str], parts: Mapping[str, Part]) -> list[str]:
        """Return some names of its parts, by default all; raise `UserError` for others."""
        for name in names:
            require_one_of(str(self.path), name, parts)
        return list(names or parts)


def studies_of(part: Part) -> list[str]:
    """Return the names of the studies of a table or figure."""
    return list(part.studies.values()) if isinstance(part, PaperTable) else [part.study]
