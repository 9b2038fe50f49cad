"""Rendered files against the record: every damage is a difference, and nothing passes unseen."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from feinfn.errors import UserError
from mhiflab.paths import Lab, experiments_dir, study_path
from mhiflab.record import tag
from mhiflab.record.archive import archived_data, archived_store
from mhiflab.render.paper import Plans, checked_paper, render
from mhiflab.render.verify import differences, verify_paper

FOLDER = experiments_dir() / "paper"
RENDERED = FOLDER / "rendered" / "laptop"
Damage = Callable[[Path], object]


@pytest.fixture
def copy(tmp_path) -> Path:
    """A copy of the committed files."""
    return Path(shutil.copytree(RENDERED, tmp_path / "copy"))


@pytest.fixture(scope="module")
def record(tmp_path_factory) -> Path:
    """An archive of the classical methods' runs alone."""
    folder = tmp_path_factory.mktemp("record")
    (folder / "runs").mkdir()
    shutil.copy(FOLDER / "record" / "laptop" / "data.json", folder)
    for path in (FOLDER / "record" / "laptop" / "runs").glob("*.json"):
        if json.loads(path.read_text())["tags"][tag.STUDY] == "crops_classical":
            shutil.copy(path, folder / "runs")
    return folder


@pytest.fixture
def paper(tmp_path) -> Path:
    """A paper of a table and a figure of classical methods, with its rendered files."""
    folder = tmp_path / "paper"
    shutil.copytree(FOLDER.parent / "bases", tmp_path / "bases")
    shutil.copytree(FOLDER, folder, ignore=lambda *_: {"rendered", "record"})
    content = yaml.safe_load((FOLDER / "laptop.yaml").read_text())
    content["tables"] = {"classical": content["tables"]["classical"]}
    content["figures"] = {"spectra": content["figures"]["spectra"]}
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    (folder / "rendered" / "small").mkdir(parents=True)
    for name in ("classical", "spectra"):
        for file in RENDERED.glob(f"{name}*"):
            shutil.copy(file, folder / "rendered" / "small")
    return path


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("curves.png", lambda path: path.write_bytes(path.read_bytes()[:2000])),
        ("curves.png", lambda path: path.write_bytes(b"")),
        ("curves.png", lambda path: path.write_bytes(path.read_bytes()[:20])),
        ("fourier.html", lambda path: path.write_bytes(b"\xff")),
        ("fourier.md", lambda path: path.write_bytes(b"\xff")),
        ("fourier.csv", lambda path: path.write_bytes(b"\xe9")),
        ("fourier.json", lambda path: path.write_text("{")),
        ("fourier.json", lambda path: path.write_text("[" * 100_000)),
    ],
)
def test_damaged_files_are_differences(name, damage, copy):
    damage(copy / name)
    (found,) = differences(copy, RENDERED)
    assert found.startswith(f"{name}: cannot be read (")


@pytest.mark.parametrize("text", ["<td>99.9</td>", "<![x[ <td>", ""])
def test_any_other_text_is_a_difference(text, copy):
    (copy / "fourier.html").write_text(text)
    assert all(line.startswith("fourier.html") for line in differences(copy, RENDERED))
    assert len(differences(copy, RENDERED)) > 0


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (
            "p = 0.77 after",
            "p = 0.07 after",
            r"found '\.\.\.[^']{29,40}p = 0.07 after .{20,}\.\.\.',",
        ),
        ("do not.", "do not!", r"'\.\.\.[^']* do not!', the record gives '\.\.\.[^']* do not\.'"),
        ("- No difference", "- A difference", r"'- A difference [^']{60,}\.\.\.',"),
    ],
)
def test_a_long_line_is_shown_where_it_differs(old, new, told, copy):
    path = copy / "fourier.md"
    path.write_text(path.read_text().replace(old, new, 1))
    (found,) = differences(copy, RENDERED)
    assert re.search(told, found)
    texts = re.findall("'([^']*)'", found)
    assert texts[0] != texts[1]
    assert all(len(text) <= 86 for text in texts)


def test_a_text_is_not_shown_as_the_number_it_names(copy):
    path = copy / "fourier.json"
    content = json.loads(path.read_text())
    content["blocks"][0]["rows"][1]["runs_lacking"] = "0"
    path.write_text(json.dumps(content))
    (found,) = differences(copy, RENDERED)
    assert found.endswith("""runs_lacking: found '"0"', the record gives '0'""")


@pytest.mark.parametrize(
    ("name", "old", "new", "told"),
    [
        ("fourier-statistics.csv", "0.916512", "0.916", "line 4 (sam, p_holm): found"),
        ("curves.csv", "36.7961", "36.7962", "line 3 (Without the Fourier branch, value): found"),
        ("fourier.csv", "39.577", "38.577", "line 5 (FeINFN, psnr_mean): found"),
    ],
)
def test_a_row_is_named_so_that_it_is_one(name, old, new, told, copy):
    path = copy / name
    path.write_text(path.read_text().replace(old, new, 1))
    (found,) = differences(copy, RENDERED)
    assert found.startswith(f"{name}, {told}")


def test_files_that_are_left_must_exist_and_no_other_is_left(copy):
    leave = {"fourier.png", "errors.png", "errors.csv"}
    (copy / "fourier.md").write_text("FeINFN 99.99 dB")
    (copy / "errors.csv").unlink()
    (copy / "errors.png").write_bytes(b"")
    (copy / "more").symlink_to(RENDERED)
    (copy / "README.md").write_text("ours")
    found = differences(copy, RENDERED, leave)
    assert {line.partition(":")[0].partition(",")[0] for line in found} == {
        *("fourier.md", "fourier.png", "errors.csv", "more")
    }
    assert "errors.csv: is not there, the paper makes it; render it again" in found


def test_all_rendered_files_are_those_that_names_are_kept_free_for():
    path = study_path("laptop")
    parts = checked_paper(path).parts
    known = {name + end for name, part in parts.items() for end in part.ENDS}
    assert {path.name for path in RENDERED.iterdir()} == known


def verified(paper: Path, record: Path, **changes: bool) -> None:
    content = checked_paper(paper)
    verify_paper(content, changes.get("smoke", False), Lab(paper.parent / "lab"), record=record)


def test_figures_of_what_archives_lack_are_told_and_must_be_there(paper, record, capsys):
    verified(paper, record)
    said = capsys.readouterr().out
    assert "6 files in" in said
    assert said.endswith(
        "; 1 figure not checked (their runs' pictures and weights are not in the archive): "
        "spectra\n"
    )
    (paper.parent / "rendered" / "small" / "spectra.png").unlink()
    with pytest.raises(UserError, match=r"1 differences.*\n  spectra.png: is not there"):
        verified(paper, record)


def test_a_figure_that_is_wrong_is_not_left_unchecked(paper, record):
    content = yaml.safe_load(paper.read_text())
    content["figures"]["spectra"]["options"]["cases"] = ["gsaX"]
    paper.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"spectra: .*found 'gsaX', did you mean 'gsa'"):
        verified(paper, record)


def test_a_folder_that_is_missing_is_told_how_to_make(paper, record):
    name = f"{paper.stem}-smoke"
    with pytest.raises(UserError) as told:
        verified(paper, record, smoke=True)
    assert str(told.value).startswith(f"{paper.parent / 'rendered' / name}: no such folder")
    assert f"mhiflab table {paper} --smoke" in str(told.value)
    assert str(paper.parent / "lab" / "rendered" / name) in str(told.value)


def test_what_is_complete_is_written_though_other_parts_lack_runs(record, tmp_path, capsys):
    path, lab = study_path("laptop"), Lab(tmp_path / "lab")
    plans = Plans(
        checked_paper(path), False, archived_store(record, lab), lab, archived_data(record)
    )
    wanted = ["fourier", "classical", "curves", "spectra"]
    with pytest.raises(UserError) as told:
        render(plans, lab.rendered("laptop"), wanted, asked=wanted)
    folder = lab.rendered("laptop")
    assert {file.name for file in folder.iterdir()} == {
        file.name for file in RENDERED.glob("classical*")
    }
    assert f"classical {folder / 'classical.md'}" in capsys.readouterr().out
    first, *lines = str(told.value).splitlines()
    assert first == f"{path}: cannot be made from the record:"
    assert [line.split(":")[0].strip() for line in lines] == ["fourier, curves", "spectra"]
    assert "9 of 9 runs are missing" in lines[0]
    assert "delete the run" not in lines[1]
    assert "quicklook.npz is not in its archive" in lines[1]
