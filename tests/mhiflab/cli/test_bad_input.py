"""Every mistake gets one line that says what, where and what to do, and leaves nothing behind."""

import fcntl
import shutil
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
from tiny import TINY

from feinfn.errors import UserError
from mhiflab.cli import render
from mhiflab.cli import study as study_commands
from mhiflab.cli.data import export
from mhiflab.cli.render import figure
from mhiflab.cli.render import report as report_command
from mhiflab.cluster.package import study_files
from mhiflab.plan.plan import read_plan
from mhiflab.record import store

BANDS_NM = np.arange(400, 701, 10)


def scene(path: Path, shape: tuple[int, ...] = (31, 64, 64), value: float = 0.5) -> None:
    with h5py.File(path, "w") as file:
        file["GT"] = np.full(shape, value, np.float32)
        file["wavelength_nm"] = BANDS_NM[: shape[0]]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2000])


def no_wavelengths(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["cube"] = np.zeros((31, 64, 64), np.float32)


DAMAGE = {
    "missing": (lambda path: path.unlink(), "data.validation: found 'val', expected scenes of"),
    "truncated": (truncate, "val.h5: cannot be read as HDF5"),
    "no wavelengths": (no_wavelengths, "val.h5: response nikon_d700_akhtar_norm: the scene has no"),
    "wrong bands": (lambda path: scene(path, (30, 64, 64)), "val.h5: found 30 bands, expected"),
    "odd size": (
        lambda path: scene(path, (31, 62, 64)),
        "val.h5: found HR size 62x64 with LR size",
    ),
    "out of range": (lambda path: scene(path, value=2.0), "val.h5: found values from 2 to 2"),
    "NaN": (lambda path: scene(path, value=np.nan), "val.h5: found 126976 NaN or inf values"),
}


def assert_one_clear_error(done: subprocess.CompletedProcess, message: str, lab: Path) -> None:
    assert done.returncode != 0
    assert done.stderr.startswith("error: ")
    assert message in done.stderr.replace("\n", " "), done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not lab.exists(), "nothing half-written"


@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_data(kind, mhiflab, write_study, tmp_path):
    folder = tmp_path / "scenes"
    folder.mkdir()
    for name in ("a", "val", "test"):
        scene(folder / f"{name}.h5")
    damage, message = DAMAGE[kind]
    damage(folder / "val.h5")
    data = {"source": str(folder), "train": ["a"], "validation": ["val"], "test": ["test"]}
    study = write_study(base={**TINY["base"], "data": data})
    assert_one_clear_error(mhiflab("run", study), message, tmp_path / "lab")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": [1]}, "tiny.yaml: unknown key 'seed'; did you mean 'seeds'?"),
        ({"seeds": ["one"]}, "tiny.yaml: seeds.0: found 'one', expected: Input should be a valid"),
        (
            {"base": {"train": {"batch_size": 3}, "resources": {"workers": 2}}},
            "train.batch_size: found 3, expected a multiple of resources.workers = 2",
        ),
    ],
)
def test_bad_study(changes, message, mhiflab, write_study, tmp_path):
    done = mhiflab("run", write_study(**changes))
    assert_one_clear_error(done, message, tmp_path / "lab")


@pytest.mark.parametrize("text", ["", "# a comment alone\n"])
def test_an_empty_study_is_called_so(text, tmp_path):
    study = tmp_path / "tiny.yaml"
    study.write_text(text)
    for read in (read_plan, study_files):
        with pytest.raises(
            UserError, match=r"tiny\.yaml: found an empty file, or comments alone, expected"
        ):
            read(study)


def test_absent_study_names_the_shipped_ones(mhiflab, tmp_path):
    done = mhiflab("run", "absent.yaml")
    assert_one_clear_error(done, "absent.yaml: no such study file; give a YAML", tmp_path / "lab")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan", "crops_fourir"], "no such study file; did you mean 'crops_fourier'? give a YAML"),
        (["robustness", "laptop"], "laptop.yaml: found a paper, expected a study; name one of its"),
        (
            ["figure", "laptop", "--kind", "cost"],
            "laptop.yaml: found 3 studies with --kind cost",
        ),
        (["table", "crops_fourier", "--name", "t"], "found 't', expected one of table"),
        (["verify", "crops_fourier"], "rendered/crops_fourier: no such folder of rendered tables"),
        (["verify", "lapto"], "no such study file; did you mean 'laptop'?"),
        (
            ["compare", "ab12", "cd34", "--out", "/dev/null/a.html"],
            "/dev/null: found a file, expected a folder",
        ),
    ],
)
def test_what_is_no_study_paper_or_place(words, message, mhiflab, tmp_path):
    assert_one_clear_error(mhiflab(*words), message, tmp_path / "lab")


def test_table_without_a_record(mhiflab, write_study, tmp_path):
    done = mhiflab("table", write_study())
    assert_one_clear_error(done, "no record yet; run the study first", tmp_path / "lab")


def test_unreachable_mlflow_server(mhiflab, write_study, tmp_path):
    # Nothing listens on port 9 of the loopback.
    at_once = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    done = mhiflab("run", write_study(), MLFLOW_TRACKING_URI="http://127.0.0.1:9", **at_once)
    assert_one_clear_error(
        done, "MLflow store http://127.0.0.1:9: cannot be reached", tmp_path / "lab"
    )


def test_request_that_never_fits(mhiflab, without_ray, write_study):
    resources = {"workers": 2, "cpus_per_worker": 5000}
    done = mhiflab("run", write_study(base={**TINY["base"], "resources": resources}))
    assert done.returncode == 1
    assert "one trial asks for workers: 2 of cpus_per_worker: 5000" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("study", "words", "named"),
    [
        ("laptop", {"kind": "fused", "option": ["seed=1"]}, "3 studies with --kind fused --option"),
        ("demo", {"kind": "fused", "name": ["fused"]}, "with --kind fused --name fused, expected"),
        ("demo", {"option": ["seed=1"]}, "with --kind left out --option seed, expected"),
        ("demo", {"kind": "all", "option": ["seed=1"]}, "with --kind all --option seed, expected"),
    ],
)
def test_options_that_do_not_go_together_are_named(study, words, named, tmp_path):
    with pytest.raises(UserError, match=rf"{study}\.yaml: found .*{named}"):
        figure(study, lab=tmp_path, **words)


def test_places_that_cannot_be_written_are_told_before_the_work(write_study, tmp_path, monkeypatch):
    def begun(*given):
        pytest.fail("the record was opened")

    monkeypatch.setattr(store, "recorded_store", begun)
    monkeypatch.setattr("mhiflab.execute.run.upload_waiting_runs", begun)
    study, lab, file = str(write_study()), tmp_path / "lab", tmp_path / "lr.npy"
    (lab / "rendered").mkdir(parents=True)
    for taken in (file, lab / "rendered" / "tiny"):
        taken.touch()
    rendered = "rendered/tiny: found a file, expected a folder for"
    protocol = {"source": tmp_path, "protocol": "cave_x4", "part": "all"}
    for command, words, message in (
        (report_command, {"out_file": tmp_path}, f"{tmp_path}: found a folder, expected a file"),
        (report_command, {}, f"{rendered} report.html"),
        (render.table, {}, f"{rendered} table.md"),
        (study_commands.run, {}, f"{rendered} table.md"),
        (render.export, {"to": file}, "lr.npy: found a file, expected a folder for data.json"),
    ):
        with pytest.raises(UserError, match=message):
            command(study, lab=lab, **words)
    with pytest.raises(UserError, match=r"lr\.npy: found a file, expected a folder for pairs\.h5"):
        export(file=file / "pairs.h5", **protocol)


def test_full_disk(mhiflab, write_study, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not permitted here")
    try:
        done = mhiflab("run", write_study(), "--lab", small / "lab")
        assert_one_clear_error(done, "MiB free on this disk, expected at least", small / "lab")
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_second_driver_in_one_lab_is_refused(mhiflab, write_study, tmp_path):
    (tmp_path / "lab").mkdir()
    with (tmp_path / "lab" / "driver.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        done = mhiflab("run", write_study())
    assert done.returncode == 1
    assert "lab: another mhiflab run is at work in this folder" in done.stderr
    assert [p.name for p in (tmp_path / "lab").iterdir()] == ["driver.lock"]


def test_debug_shows_the_traceback(mhiflab_process):
    done = mhiflab_process("run", "absent.yaml", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr
