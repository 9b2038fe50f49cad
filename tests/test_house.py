"""The house in numbers: small files, folders and functions, and docstrings that name the thing."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

SOURCES = ("feinfn", "platform/mhiflab", "experiments")
FILE_LINES, FOLDER_MODULES = 300, 9
FUNCTION_LINES, PARAMETERS = 60, 7
OPTIONS = "a command: each parameter is an option with its help"
EXCEPTIONS = {
    "feinfn/inference/apply.py:fuse_files": "each keyword is a fact that a file may not state",
    "feinfn/training/train.py:train": "the entry of training: callers name each part by keyword",
    "platform/mhiflab/cli/compare.py:compare": OPTIONS,
    "platform/mhiflab/cli/data.py:inspect": OPTIONS,
    "platform/mhiflab/cli/data.py:prepare": OPTIONS,
    "platform/mhiflab/cli/evaluate.py:evaluate": OPTIONS,
    "platform/mhiflab/cli/fuse.py:fuse": OPTIONS,
    "platform/mhiflab/cli/render.py:figure": OPTIONS,
    "platform/mhiflab/cli/render.py:table": OPTIONS,
}
"""Functions that may be longer or take more, and why."""
NOT_FIRST = ("What", "Where", "Whether", "How", "Of")
LAZY_NAMES = ("feinfn/__init__.py",)
"""Packages whose own file may hold a lazy table of public names."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> list[Path]:
    return sorted(path for top in SOURCES for path in (ROOT / top).rglob("*.py"))


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions() -> Iterator[tuple[str, Function]]:
    for path in modules():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield f"{place(path)}:{node.name}", node


def count_parameters(function: Function) -> int:
    given = function.args
    names = [*given.posonlyargs, *given.args, *given.kwonlyargs]
    own = bool(names) and names[0].arg in ("self", "cls")
    return len(names) - own + bool(given.vararg) + bool(given.kwarg)


def too_big(function: Function) -> bool:
    lines = (function.end_lineno or 0) - function.lineno + 1
    return lines > FUNCTION_LINES or count_parameters(function) > PARAMETERS


def test_files_are_short():
    lines = {place(p): len(p.read_text(encoding="utf-8").splitlines()) for p in modules()}
    assert {name: n for name, n in lines.items() if n > FILE_LINES} == {}


def test_folders_hold_few_modules():
    counts: dict[str, int] = {}
    for path in modules():
        if path.name != "__init__.py":
            counts[place(path.parent)] = counts.get(place(path.parent), 0) + 1
    assert {folder for folder, n in counts.items() if n > FOLDER_MODULES} == set()


def test_functions_are_small_or_listed_with_a_reason():
    assert {name for name, function in functions() if too_big(function)} == set(EXCEPTIONS)


@pytest.mark.parametrize("source", SOURCES)
def test_docstrings_begin_with_the_thing_or_an_imperative(source):
    wrong = []
    for path in modules():
        if not place(path).startswith(source):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, Function | ast.ClassDef | ast.Module):
                text = ast.get_docstring(node) or "-"
                if text.split()[0] in NOT_FIRST:
                    wrong.append(f"{place(path)}: {text.splitlines()[0]}")
    assert wrong == []


def test_packages_hold_no_logic():
    for path in modules():
        if path.name == "__init__.py" and place(path) not in LAZY_NAMES:
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert all(isinstance(node, ast.Expr) for node in body), place(path)
            assert len(body) == 1, f"{place(path)}: expected a docstring alone"
