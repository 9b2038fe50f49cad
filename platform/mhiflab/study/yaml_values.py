"""Plain values from YAML files, typed values from plain ones, and errors that say what to do."""

import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from feinfn.errors import UserError, nearest
from mhiflab.paths import shipped_files


class Loader(yaml.SafeLoader):
    """Safe YAML that reads 1e-4 as a number and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is given twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)

CONTROL = ("Cc", "Cs", "Zl", "Zp")
"""Unicode categories that stand in no line of text: control, half a character, separators."""


def _valid_keys(root: Any, path: Iterable[str | int]) -> list[str]:
    """Return the field names valid at a path of nested dataclasses."""
    current = root
    for step in path:
        hint = get_type_hints(current).get(str(step)) if is_dataclass(current) else None
        # Below cases.<name> the mapping's value type applies.
        args = [one for one in getattr(hint, "__args__", ()) if one is not type(None)]
        current = hint if is_dataclass(hint) else (args[-1] if args else current)
    return [f.name for f in fields(current)] if is_dataclass(current) else []


def _complain(where: str, kind: Any, error: ValidationError, under: str) -> UserError:
    """Turn pydantic's first complaint into one sentence that says what to do."""
    first = error.errors()[0]
    path = [str(step) for step in first["loc"]]
    here = ".".join([under, *path] if under else path) or "the file"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        valid = _valid_keys(kind, path[:-1])
        hint = nearest(path[-1], valid)
        return UserError(f"{where}: unknown key {here!r}; {hint}valid keys: {', '.join(valid)}")
    if first["type"] == "value_error":
        return UserError(f"{where}: {first['ctx']['error']}")
    found = first["input"] if first["type"] != "missing" else "nothing"
    return UserError(f"{where}: {here}: found {found!r}, expected: {first['msg']}")


@cache
def _adapter(kind: Any) -> TypeAdapter:
    """Return the validator of a type, made once: a study of 1,000 trials asks as often."""
    return TypeAdapter(kind)


def build(kind: Any, value: Any, where: str, under: str = "") -> Any:
    """Validate a plain value as a dataclass, strictly; raise `UserError`.

    `under` is the key that the value stands under.
    """
    try:
        # Through JSON, because strict JSON reading takes lists for tuples and 1 for 1.0.
        return _adapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        raise _complain(where, kind, error, under) from None
    except TypeError as error:
        raise UserError(f"{where}: {error}; use plain YAML values") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Return a YAML file's keys and values; raise `UserError` for anything else."""
    try:
        # S506 guards against unsafe loaders; this one derives from SafeLoader.
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(value, dict):
        found = "an empty file, or comments alone" if value is None else type(value).__name__
        raise UserError(
            f"{path}: found {found}, expected keys such as title, base; begin with a copy of a "
            "shipped study"
        )
    return value


def check_line(text: str, where: str) -> None:
    """Raise `UserError` for a text that is empty, or holds line breaks or control characters."""
    odd = any(unicodedata.category(character) in CONTROL for character in text)
    if odd or not text.strip():
        block = "; a YAML block ends in a line break: begin it with |- or >-, or quote the text"
        raise UserError(
            f"{where}: found {text!r}, expected one line of text without control characters"
            + block * text.endswith("\n")
        )


def is_paper(path: Path) -> bool:
    """Return whether a file describes a paper rather than a study."""
    if not path.is_file() or not re.search(rb"\b(tables|figures)\b", path.read_bytes()):
        return False
    return bool({"tables", "figures"} & read_yaml(path).keys())


def check_file(path: Path) -> None:
    """Raise `UserError` where there is no file of a study or a paper."""
    if not path.is_file():
        names = shipped_files()
        raise UserError(
            f"{path}: no such study file; {nearest(str(path), names)}give a YAML file or one of: "
            + ", ".join(names)
        )


def check_study(path: Path) -> None:
    """Raise `UserError` where there is no file of a study, but nothing or a paper's."""
    check_file(path)
    if is_paper(path):
        raise UserError(
            f"{path}: found a paper, expected a study; name one of its studies, which "
            f"`mhiflab plan {path}` lists"
        )
