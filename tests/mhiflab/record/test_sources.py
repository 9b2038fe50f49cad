"""Tables and figures of an archive's runs, where neither scenes nor a record are."""

from pathlib import Path

import pytest

from feinfn.errors import UserError
from mhiflab.paths import Lab, experiments_dir, study_path
from mhiflab.record.store import open_store
from mhiflab.render.paper import opened_plans, render
from mhiflab.study.read import read_paper

FOLDER = experiments_dir() / "paper"
RENDERED, RECORD = FOLDER / "rendered" / "laptop", FOLDER / "record" / "laptop"


def same(folder: Path, stem: str) -> None:
    found = {path.name: path.read_bytes() for path in folder.glob(f"{stem}*")}
    assert found
    assert found == {path.name: path.read_bytes() for path in RENDERED.glob(f"{stem}*")}


def test_a_paper_is_rendered_from_an_archive(mhiflab, tmp_path):
    words = ["laptop", "--record", RECORD]
    done = mhiflab("table", *words, "--name", "fourier")
    assert done.returncode == 0, done.stderr
    rendered = tmp_path / "lab" / "rendered" / "laptop"
    same(rendered, "fourier")
    drawn = mhiflab("figure", *words)
    assert drawn.returncode == 0, drawn.stderr
    same(rendered, "curves")
    for name in ("errors", "spectra"):
        assert f"{name:8} not drawn: run " in drawn.stdout
    assert "artifact quicklook.npz is not in its archive" in drawn.stdout
    assert not list((tmp_path / "lab").glob("mlflow*"))
    assert not (rendered / "errors.csv").exists()


def test_a_figure_that_is_named_must_be_drawn(tmp_path):
    path = study_path("laptop")
    with opened_plans(read_paper(path), False, Lab(tmp_path), RECORD) as plans:
        told = r"\n  errors: run .* quicklook.npz is not in its archive"
        with pytest.raises(UserError, match=told):
            render(plans, tmp_path, ["curves", "errors"], asked=["errors"])


def test_a_study_is_rendered_from_an_archive(mhiflab, tmp_path):
    words = ["crops_fourier", "--record", RECORD]
    done = mhiflab("table", *words)
    assert done.returncode == 0, done.stderr
    assert "| FeINFN |" in (tmp_path / "lab/rendered/crops_fourier/table.md").read_text()
    assert "fused    not drawn: run " in done.stdout
    assert "Browse the runs" not in done.stdout
    drawn = mhiflab("figure", *words, "--kind", "curves", "--out", tmp_path / "here")
    assert drawn.returncode == 0, drawn.stderr
    same(tmp_path / "here", "curves")


def test_scenes_that_are_elsewhere_are_told_once_with_the_way_out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lab = Lab(tmp_path / "lab")
    open_store(lab, f"sqlite:///{lab.database}")
    paper = read_paper(study_path("laptop"))
    with opened_plans(paper, False, lab, None) as plans, pytest.raises(UserError) as told:
        render(plans, tmp_path, paper.tables)
    _, line = str(told.value).splitlines()
    assert line.startswith("  fourier, activations, classical: data.source: found ")
    assert "which does not exist" in line
    assert "in the folder that the path is relative to" in line
    assert "mhiflab export where the data are, and give that folder with --record" in line
