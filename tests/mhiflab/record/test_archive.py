"""Recorded runs as text files: what is refused, what is kept, and numbers that follow from them."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feinfn.errors import UserError
from mhiflab.paths import Lab, experiments_dir, study_path
from mhiflab.plan.export import export_runs
from mhiflab.record import tag
from mhiflab.record.archive import archived_data, archived_store, import_archive
from mhiflab.record.artifacts import IMAGES_FILE
from mhiflab.record.finished import RecordedRun
from mhiflab.record.store import Store, open_store, trial_runs
from mhiflab.render.paper import Plans
from mhiflab.render.runs import Results, collect
from mhiflab.render.tables.rows import rows
from mhiflab.study.read import read_paper

LAPTOP, STUDY_NAME = study_path("laptop"), "crops_classical"
COMMITTED = experiments_dir() / "paper" / "record" / "laptop"
Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def record(tmp_path) -> Path:
    """An archive of the classical methods' runs alone."""
    return classical_runs(tmp_path / "record")


def classical_runs(folder: Path) -> Path:
    """Copy the classical methods' committed runs into a folder and return it."""
    (folder / "runs").mkdir(parents=True)
    shutil.copy(COMMITTED / "data.json", folder)
    for path in (COMMITTED / "runs").glob("*.json"):
        if json.loads(path.read_text())["tags"][tag.STUDY] == STUDY_NAME:
            shutil.copy(path, folder / "runs")
    return folder


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Store:
    """A store without runs."""
    lab = Lab(tmp_path_factory.mktemp("empty") / "lab")
    return open_store(lab, f"sqlite:///{lab.database}")


def change_runs(record: Path, change: Change, case: str | None = None) -> list[str]:
    """Change the files of a case's runs, or of all; return their keys."""
    keys = []
    for path in (record / "runs").glob("*.json"):
        content = json.loads(path.read_text())
        if case in (None, content["tags"][tag.CASE]):
            keys.append(content["tags"][tag.KEY])
            change(content)
            path.write_text(json.dumps(content))
    return keys


def results(record: Path, lab: Path) -> Results:
    store = archived_store(record, Lab(lab))
    plan = Plans(read_paper(LAPTOP), False, store, Lab(lab), archived_data(record)).plan(STUDY_NAME)
    return collect(plan)


@pytest.fixture(scope="module")
def committed(tmp_path_factory) -> Results:
    """What the classical methods' committed runs tell."""
    folder = tmp_path_factory.mktemp("committed")
    return results(classical_runs(folder / "record"), folder / "lab")


def test_classical_methods_are_named_without_a_seed(record, tmp_path):
    store = archived_store(record, Lab(tmp_path / "lab"))
    names = {RecordedRun(store, run).name for run in trial_runs(store).values()}
    labels = {name.rpartition(" (")[0] for name in names}
    assert labels == {"Bicubic", "GSA", "SFIM-HS", "CNMF", "Subspace least squares"}


def with_upsampled(given: Results, case: str, factor: float) -> Results:
    """Return results in which a run has another PSNR of an upsampled image."""
    of = given.images
    changed = (of["case"] == case) & (of["scene"] == "cloth_ms") & (of["method"] == "upsampled")
    assert changed.sum() == 1
    images = of.assign(psnr=of["psnr"].where(~changed, of["psnr"] * factor))
    return replace(given, images=images)


def test_scenes_may_be_named_like_numbers(record, committed, tmp_path):
    names = {"cloth_ms": "001", "paints_ms": "NA", "pompoms_ms": "1e3"}

    def rename(content: dict[str, Any]) -> None:
        for old, new in names.items():
            text = content["files"][IMAGES_FILE]
            content["files"][IMAGES_FILE] = text.replace(f"\n{old},", f"\n{new},")

    change_runs(record, rename)
    found = results(record, tmp_path / "lab")
    assert {"001", "NA", "1e3"} < set(found.scenes)
    assert len(found.scenes) == 9
    for old, new in zip(rows(committed), rows(found), strict=True):
        assert new.method == old.method
        assert new.values["psnr"].mean == pytest.approx(old.values["psnr"].mean, rel=1e-14)


def test_runs_agree_on_the_upsampled_image_but_for_their_devices(committed):
    first, *others = sorted(committed.plan.entries, key=lambda entry: entry.key)
    before = committed.upsampled()
    for entry in others:
        found = with_upsampled(committed, entry.trial.case, 1 + 9e-5).upsampled()
        pd.testing.assert_frame_equal(found, before)
    # Numbers are the first run's, whichever case that is.
    found = with_upsampled(committed, first.trial.case, 1 + 9e-5).upsampled()
    assert found["psnr"][0] == before["psnr"][0] * (1 + 9e-5)
    everywhere = committed
    for entry in committed.plan.entries:
        everywhere = with_upsampled(everywhere, entry.trial.case, math.nan)
    assert math.isnan(everywhere.upsampled()["psnr"][0])


@pytest.mark.parametrize("factor", [1 + 1.1e-4, math.nan, math.inf])
@pytest.mark.parametrize("case", ["gsa", "sfim_hs"])
def test_other_upsampled_images_are_told_with_both_runs(factor, case, committed):
    with pytest.raises(UserError, match="cloth_ms: psnr of the upsampled LR-HSI") as told:
        with_upsampled(committed, case, factor).upsampled()
    entry = next(e for e in committed.plan.entries if e.trial.case == case)
    first = min(committed.plan.entries, key=lambda e: e.key)
    for one in (entry, first):
        assert f"{one.who} ({one.key[:12]})" in str(told.value)
    assert "run the study again" in str(told.value)


def lacking_metrics(content: dict[str, Any]) -> None:
    del content["files"][IMAGES_FILE]


def of_another_spec(content: dict[str, Any]) -> None:
    spec = json.loads(content["files"]["spec.json"])
    spec["protocol"]["psf_sigma_px"] = 0.7
    content["files"]["spec.json"] = json.dumps(spec)


def without_a_spec(content: dict[str, Any]) -> None:
    content["files"]["spec.json"] = "[]"


def of_other_data(content: dict[str, Any]) -> None:
    content["tags"]["mhiflab.data_fingerprint"] = "0" * 64


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lacking_metrics, f"files: found no {IMAGES_FILE}"),
        (of_another_spec, "found a spec.json that does not match the hashes in the run's tags"),
        (of_other_data, "found a spec.json that does not match the hashes in the run's tags"),
        (without_a_spec, "spec.json: cannot be read"),
        (lambda content: content.update(extra=1), "unknown key 'extra'"),
        (lambda content: content.update(status="RUNNING"), "status: found 'RUNNING', expected"),
        (lambda content: content["tags"].pop(tag.KEY), f"tags: found no {tag.KEY}"),
    ],
)
def test_changed_run_files_are_refused_before_any_run_is_made(change, told, record, empty):
    (key,) = change_runs(record, change, "gsa")
    with pytest.raises(UserError, match=told) as raised:
        import_archive(record, empty)
    assert str(raised.value).startswith(str(record / "runs" / f"{key[:16]}.json"))
    assert trial_runs(empty) == {}


def test_a_second_file_of_one_run_is_refused(record, empty):
    path = next((record / "runs").glob("*.json"))
    shutil.copy(path, record / "runs" / "zzzz.json")
    with pytest.raises(UserError, match=f"zzzz.json: found run key {path.stem}"):
        import_archive(record, empty)
    assert trial_runs(empty) == {}


def test_exporting_keeps_what_a_folder_holds_of_other_studies(record, tmp_path, monkeypatch):
    lab, here = Lab(tmp_path / "lab"), archived_data(record)
    store = archived_store(record, lab)
    monkeypatch.setattr("mhiflab.plan.export.resolve_data", here.resolve)
    monkeypatch.setattr("mhiflab.plan.export.survey", here.survey)
    study, out = LAPTOP.parent / f"{STUDY_NAME}.yaml", tmp_path / "out"
    assert len(export_runs([study], False, store, lab, out)) == 5
    for path in record.rglob("*.json"):
        assert json.loads((out / path.relative_to(record)).read_text()) == json.loads(
            path.read_text()
        )
    # Another study's data and run.
    known = json.loads((out / "data.json").read_text())
    ((name, content),) = known.items()
    other = json.dumps(json.loads(name) | {"source": "other.h5"}, sort_keys=True)
    content = content | {"resolved": content["resolved"] | {"source": "other.h5"}}
    (out / "data.json").write_text(json.dumps({other: content}))
    (out / "runs" / "other.json").write_text("{}")
    export_runs([study], False, store, lab, out)
    assert set(json.loads((out / "data.json").read_text())) == {name, other}
    assert (out / "runs" / "other.json").exists()


@pytest.mark.parametrize("text", ["{", "[]", '{"x": 1}', '{"x": {"resolved": {}, "survey": []}}'])
def test_nothing_is_exported_beside_data_that_cannot_be_read(text, tmp_path):
    (tmp_path / "data.json").write_text(text)
    with pytest.raises(UserError, match=r"data.json(: cannot be read|, which .* expected)"):
        export_runs([], False, None, Lab(tmp_path / "lab"), tmp_path)  # type: ignore[arg-type]
    assert (tmp_path / "data.json").read_text() == text
