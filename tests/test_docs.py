"""The documentation: generated pages are current, and links, names and commands in texts exist."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
from places import ROOT

from mhiflab.cli.main import app

TEXTS = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")]
TEXTS += sorted((ROOT / "docs").glob("*.md"))

FENCE = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?<![\w./-])mhiflab ([a-z]+)(?: ([a-z]+))?")
FOLDERS = "docs|experiments|feinfn|platform|tests"
PLACE = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w./-]*\w/?)(?![\w<*])")


def load(name: str) -> ModuleType:
    """Return a script of docs/ as a module."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def generate() -> ModuleType:
    return load("generate")


@pytest.mark.parametrize("name", ["commands.md", "fields.md"])
def test_generated_pages_are_what_the_program_says(generate, name):
    committed = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert committed == generate.PAGES[name](), "run `make docs`"


def test_every_field_and_option_is_in_the_pages(generate):
    # What the pages are made of, counted in another way.
    fields = generate.fields_page()
    for name in ("omega_0", "hsi_snr_db", "match_parameters", "checkpoint_every", "after_epoch"):
        assert f"| `{name}` |" in fields
    commands = generate.commands_page()
    for name in ("--new-data", "--reference-full-scale", "--tracking-uri", "--bands-axis"):
        assert name in commands


def prose(path: Path) -> str:
    """Return a page without its code blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def code(path: Path) -> Iterator[str]:
    """Yield a page's code blocks, and the code in its lines."""
    yield from FENCE.findall(path.read_text(encoding="utf-8"))
    yield from re.findall(r"`([^`\n]+)`", prose(path))


def anchors(path: Path, generate: ModuleType) -> set[str]:
    """Return the anchors of a page's headings; headings that come again get a number."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE):
        anchor, times = generate.anchor(heading), 0
        while (name := f"{anchor}-{times}" if times else anchor) in found:
            times += 1
        found.add(name)
    return found


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_links_lead_to_files_and_headings_that_exist(path, generate):
    for target in LINK.findall(prose(path)):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        place = (path.parent / name).resolve() if name else path
        assert place.is_file(), f"{path.name}: {target}"
        if anchor:
            assert anchor in anchors(place, generate), f"{path.name}: {target}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_files_named_in_texts_exist(path):
    for place in PLACE.findall(path.read_text(encoding="utf-8")):
        here = (ROOT / place, path.parent / place)
        assert any(one.exists() for one in here), f"{path.name}: {place}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_commands_named_in_code_exist(path):
    root: Any = typer.main.get_command(app)
    for text in code(path):
        for name, word in COMMAND.findall(text):
            assert name in root.commands, f"{path.name}: mhiflab {name}"
            if name == "data" and word:
                assert word in root.commands["data"].commands, f"{path.name}: data {word}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_options_named_with_a_command_exist(path):
    root: Any = typer.main.get_command(app)
    for line in (line for text in code(path) for line in text.splitlines()):
        found = COMMAND.search(line)
        if found is None:
            continue
        command = root.commands[found[1]]
        if found[1] == "data" and found[2]:
            command = command.commands[found[2]]
        known = {"--help", "--debug", *(word for one in command.params for word in one.opts)}
        words = line[found.end() :].partition("#")[0]
        assert set(re.findall(r"--[a-z][a-z-]*", words)) <= known, f"{path.name}: {line}"


def test_readme_names_every_command():
    root: Any = typer.main.get_command(app)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in (*root.commands, *root.commands["data"].commands):
        assert f"`{name}`" in text, name


def test_readme_and_its_pictures_are_small():
    assert (ROOT / "README.md").stat().st_size <= 6144
    pictures = list((ROOT / "docs" / "images").iterdir())
    assert {one.name for one in pictures} == {"demo.png", "idea.png"}
    assert sum(one.stat().st_size for one in pictures) <= 300 * 1024


def test_every_guide_is_linked_from_the_readme():
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    guides = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert guides <= linked


def test_the_idea_is_drawn_from_the_sample():
    figure = load("pictures").idea()
    (axes,) = figure.axes
    texts = " ".join(text.get_text() for text in axes.texts)
    for expected in ("31 bands, 32 × 32 pixels", "3 bands, 128 × 128 pixels"):
        assert expected in texts
