"""YAML files: read plain values, turn them into typed ones, and explain errors."""

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
    """Safe YAML loader that reads 1e-4 as a number and refuses duplicate keys."""

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
"""Unicode categories that no line of text contains: controls, surrogates, line and paragraph
separators."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raise `UserError` if the file holds anything else."""
    if not path.is_file():
        names = shipped_files()
        raise UserError(
            f"{path}: no such study file; {nearest(str(path), names)}give a YAML file or one of: "
            + ", ".join(names)
        )
    try:
        # S506 guards against unsafe loaders; this one derives from SafeLoader.
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)  # noqa: S506
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {error}") from None
    if not isinstance(value, dict):
        content = "an empty file, or comments alone" if value is None else type(value).__name__
        raise UserError(
            f"{path}: found {content}, expected keys such as title, base; begin with a copy of a "
            "shipped study"
        )
    return value


def build(kind: Any, value: Any, where: str, under: str = "") -> Any:
    """Return a plain value as a dataclass, validated strictly; raise `UserError` if it is invalid.

    Errors begin with `where`; `under` is the value's key, if it is not a whole file.
    """
    try:
        # Through JSON, because strict JSON reading takes lists for tuples and 1 for 1.0.
        return _adapter(kind).validate_json(json.dumps(value))
    except ValidationError as error:
        raise _explained(where, kind, error, under) from None
    except TypeError as error:
        raise UserError(f"{where}: {error}; use plain YAML values") from None


@cache
def _adapter(kind: Any) -> TypeAdapter:
    """Return the validator of a type, made once: a study of 1,000 trials needs it as often."""
    return TypeAdapter(kind)


def _explained(where: str, kind: Any, error: ValidationError, under: str) -> UserError:
    """Return pydantic's first error as one sentence that says what to do."""
    first = error.errors()[0]
    path = [str(step) for step in first["loc"]]
    key = ".".join([under, *path] if under else path) or "the file"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        valid = _valid_keys(kind, path[:-1])
        hint = nearest(path[-1], valid)
        return UserError(f"{where}: unknown key {key!r}; {hint}valid keys: {', '.join(valid)}")
    if first["type"] == "value_error":
        reason = first["ctx"]["error"]
        if "." not in reason.field:
            # Settings without a section stand where the file says.
            reason.field = ".".join(filter(None, [*path, reason.field]))
        return UserError(f"{where}: {reason}")
    value = first["input"] if first["type"] != "missing" else "nothing"
    return UserError(f"{where}: {key}: found {value!r}, expected: {first['msg']}")


def _valid_keys(root: Any, path: Iterable[str | int]) -> list[str]:
    """Return the names of the fields at a path of nested dataclasses."""
    current = root
    for step in path:
        hint = get_type_hints(current).get(str(step)) if is_dataclass(current) else None
        # Below cases.<name> the mapping's value type applies.
        args = [one for one in getattr(hint, "__args__", ()) if one is not type(None)]
        current = hint if is_dataclass(hint) else (args[-1] if args else current)
    return [f.name for f in fields(current)] if is_dataclass(current) else []


def check_line(text: str, where: str) -> None:
    """Raise `UserError` if a text is empty or holds line breaks or control characters."""
    has_control = any(unicodedata.category(character) in CONTROL for character in text)
    if has_control or not text.strip():
        hint = "; a YAML block ends in a line break: begin it with |- or >-, or quote the text"
        raise UserError(
            f"found {text!r}, expected one line of text without control characters"
            + hint * text.endswith("\n"),
            where,
        )
