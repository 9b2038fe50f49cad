"""Labs that were moved or copied."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_record import opened, write

from feinfn.errors import UserError
from mhiflab.exclusion import driver_lock
from mhiflab.paths import Lab
from mhiflab.record.store import open_store, tracking_uri

KEY = "k" * 32
READ = """
import sys
from pathlib import Path
from mhiflab.paths import Lab
from mhiflab.record.artifacts import add_artifact, artifact_file
from mhiflab.record.store import recorded_store, trial_runs
store = recorded_store(Lab(Path(sys.argv[1])))
run = trial_runs(store)[sys.argv[2]].info.run_id
with artifact_file(store, run, "table.csv") as path:
    print(path.read_text())
add_artifact(store, run, Path(sys.argv[3]))
"""
"""Reads an artifact and adds one, in a process of its own: MLflow remembers a run's place."""


@pytest.fixture
def lab(tmp_path) -> Lab:
    lab = Lab(tmp_path / "lab")
    open_store(lab, tracking_uri(lab))
    with opened(lab, KEY) as record:
        write(record, range(1, 3))
        record.finish()
    return lab


def read(root: Path) -> str:
    words = [sys.executable, "-c", READ, str(root), KEY, __file__]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def added(root: Path) -> list[Path]:
    return list(root.rglob(Path(__file__).name))


def test_copy_of_a_lab_reads_and_writes_its_own_artifacts(lab, tmp_path):
    copy = tmp_path / "the copy"
    shutil.copytree(lab.root, copy)
    (own,) = copy.rglob("table.csv")
    own.write_text("of the copy")
    assert read(copy) == "of the copy"
    assert len(added(copy)) == 1
    assert not added(lab.root)
    assert read(lab.root) == "table"


def test_moved_lab_has_its_artifacts(lab, tmp_path):
    moved = lab.root.rename(tmp_path / "elsewhere")
    assert read(moved) == "table"
    assert len(added(moved)) == 1
    assert not lab.root.exists()


def test_database_that_was_copied_alone_is_refused(lab, tmp_path):
    alone = Lab(tmp_path / "alone")
    alone.root.mkdir()
    shutil.copy(lab.database, alone.database)
    with pytest.raises(UserError, match="copy the whole folder of the lab"):
        open_store(alone, tracking_uri(alone))


def test_lab_seen_at_another_place_while_its_driver_works_is_left_alone(lab, tmp_path):
    copy = Lab(tmp_path / "mounted")
    shutil.copytree(lab.root, copy.root)

    def place() -> str:
        store = open_store(copy, tracking_uri(copy))
        return store.client.get_experiment(store.experiment_id).artifact_location

    lock = driver_lock(copy)
    assert lock.take()
    assert place() == lab.artifacts.as_uri()
    lock.give_back()
    assert place() == copy.artifacts.as_uri()
