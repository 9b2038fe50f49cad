"""Read the file of a study, with its base and smoke variant, or of a paper."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from feinfn.errors import UserError, require_one_of
from mhiflab.paths import shipped_studies, study_path
from mhiflab.study.schema import (
    NAME,
    Case,
    Paper,
    PaperFigure,
    PaperFile,
    PaperTable,
    Study,
    studies_of,
)
from mhiflab.study.settings import inherited, merged_settings, with_keys
from mhiflab.study.smoke import smoke_variant
from mhiflab.study.yaml_values import build, check_line, read_yaml

PAPER_KEYS = {"tables", "figures"}
"""Keys of a paper's file that no study has."""

STUDY_FIGURES = ("fused", "curves")
"""Kinds of figures of a study."""


def read_paper(path: Path) -> Paper:
    """Return the tables and figures of a paper's or a study's file.

    Raise `UserError`, which names file, key and remedy, if the file is invalid.
    """
    value = read_yaml(path)
    if not PAPER_KEYS & value.keys():
        title = read_study(path).title
        figures = {x: PaperFigure(title=x, study=path.stem, kind=x) for x in STUDY_FIGURES}
        table = PaperTable(title=title, studies={"": path.stem})
        return Paper(path, title, {"table": table}, figures, study=True)
    file: PaperFile = build(PaperFile, value, str(path))
    published = path.parent / file.published if file.published else None
    paper = Paper(path, file.title, file.tables, file.figures, published)
    check_line(paper.title, f"{path}: title")
    _check_names(paper)
    for name, part in paper.parts.items():
        where = f"{path}: {'tables' if name in paper.tables else 'figures'}.{name}"
        check_line(part.title, f"{where}.title")
        for study in studies_of(part):
            if not paper.file(study).is_file():
                raise UserError(
                    f"{where}: found study {study!r}, expected a file {paper.file(study)}"
                )
        if not isinstance(part, PaperTable):
            continue
        for heading in part.studies:
            check_line(heading, f"{where}.studies: heading")
        if part.published and not paper.published:
            raise UserError(
                f"{where}.published: found no file of values; name one in the paper's key published"
            )
        for heading in part.published:
            among = "headings of the table's studies: "
            require_one_of(f"{where}.published", heading, part.studies, among)
    return paper


def _check_names(paper: Paper) -> None:
    # Some file systems ignore case, so names must differ in more than case.
    owners = {"readme.md": "a folder's own text"}
    for group, parts in (("tables", paper.tables), ("figures", paper.figures)):
        for name, part in parts.items():
            if not name.replace("_", "").replace("-", "").isalnum():
                raise UserError(
                    f"{paper.path}: {group}: found {name!r}, expected letters, digits, - and _, "
                    "because files are named after it"
                )
            for file in (name + end for end in part.ENDS):
                owner = owners.setdefault(file.casefold(), f"{group}.{name}")
                if owner != f"{group}.{name}":
                    raise UserError(
                        f"{paper.path}: {group}: found {name!r}, whose file {file} would be that "
                        f"of {owner} too, expected another name"
                    )


def read_study(path: Path, smoke: bool = False) -> Study:
    """Return the study of a file, or its smoke variant, with `base.from` resolved.

    Raise `UserError`, which names file, key and remedy, if the study is invalid.
    """
    value = read_yaml(path)
    if PAPER_KEYS & value.keys():
        raise UserError(
            f"{path}: found a paper, expected a study; name one of its studies, which "
            f"`mhiflab plan {path}` lists"
        )
    study: Study = build(Study, value, str(path))
    _check_name(path.stem, f"{path}: the file's name")
    check_line(study.title, f"{path}: title")
    for name, case in study.cases.items():
        _check_name(name, f"{path}: cases")
        check_line(case.label, f"{path}: cases.{name}.label")
    study = replace(study, base=_resolved_base(study.base, path))
    if not study.cases:
        study = replace(study, cases={"base": Case(label=study.title)})
    if study.baseline is not None:
        require_one_of(f"{path}: baseline", study.baseline, study.cases, "one of the cases: ")
    return smoke_variant(study, path) if smoke else study


def _check_name(name: str, where: str) -> None:
    if not NAME.fullmatch(name):
        raise UserError(
            f"{where}: found {name!r}, expected letters, digits and . _ + = - with a letter or "
            "digit first, because folders and tags are named after it"
        )


def _resolved_base(base: dict[str, Any], path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return a base merged over the settings that its `from` names.

    `seen` holds the files that led here. Raise `UserError` if `from` names nothing, or a cycle.
    """
    if "from" not in base:
        return base
    name = base["from"]
    overrides = {key: value for key, value in base.items() if key != "from"}
    where = f"{path}: base.from"
    if not isinstance(name, str):
        raise UserError(f"{where}: found {name!r}, expected a study, or STUDY/CASE")
    parent, case = _named_file(name, path, where)
    if parent.resolve() in (path.resolve(), *seen):
        raise UserError(f"{where}: found {name!r}, which is based on this study itself")
    content = read_yaml(parent)
    if "title" not in content:
        if case:
            raise UserError(f"{where}: {parent} has no cases, found {case!r}; leave it out")
        return merged_settings(_resolved_base(content, parent, (*seen, path.resolve())), overrides)
    study: Study = build(Study, content, str(parent))
    settings = _resolved_base(study.base, parent, (*seen, path.resolve()))
    if case:
        require_one_of(where, case, study.cases, f"one of the cases of {parent}: ")
        changes = study.cases[case].set
        settings = with_keys(inherited(settings, changes), changes, str(parent))
    return merged_settings(settings, overrides)


def _named_file(name: str, path: Path, where: str) -> tuple[Path, str]:
    """Return the file and the case that `from` names: beside the study, or a shipped one.

    The case is empty if `from` names a whole file. Raise `UserError` if there is no such file.
    """
    for text, case in ((name, ""), tuple(name.rpartition("/")[::2])):
        for file in (path.parent / text, path.parent / f"{text}.yaml", study_path(text)):
            if text and file.is_file():
                return file, case
    names = ", ".join(shipped_studies())
    raise UserError(
        f"{where}: found {name!r}, expected a study file (relative to this one) or one of {names}"
    )
