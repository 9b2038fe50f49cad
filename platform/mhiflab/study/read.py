"""Read a study file: its base, its cases, and its smoke variant."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from feinfn.errors import UserError, require_one_of
from mhiflab.paths import shipped_studies, study_path
from mhiflab.study.schema import NAME, Case, Study
from mhiflab.study.settings import merged_settings, with_keys
from mhiflab.study.smoke import smoke_variant
from mhiflab.study.yaml_values import build, check_line, check_study, read_yaml


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
        settings = with_keys(settings, study.cases[case].set, str(parent))
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


def read_study(path: Path, smoke: bool = False) -> Study:
    """Return the study of a file, or its smoke variant, with `base.from` resolved.

    Raise `UserError`, which names file, key and remedy, if the study is invalid.
    """
    check_study(path)
    study: Study = build(Study, read_yaml(path), str(path))
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
