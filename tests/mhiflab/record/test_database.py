"""Databases from the world: read without a write, migrated by one alone, or refused by name."""

import hashlib
import lzma
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from feinfn.errors import UserError
from mhiflab.paths import Lab
from mhiflab.record.database.condition import WRITER_TAG, condition
from mhiflab.record.database.making import migrate
from mhiflab.record.store import (
    EXPERIMENT,
    existing_store,
    find_runs,
    migrate_record,
    open_store,
    recorded_store,
    tracking_uri,
    trial_runs,
)
from mhiflab.record.studies import study_run

OLDER = Path(__file__).parent.parent / "kept" / "mlflow-2.14.db.xz"
"""Database with one run that MLflow 2.14.0 made."""


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def older(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path / "lab")
    lab.root.mkdir()
    lab.database.write_bytes(lzma.decompress(OLDER.read_bytes()))
    return lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path / "lab")
    open_store(lab, tracking_uri(lab))
    return lab


def change(lab: Lab, *statements: str) -> None:
    with closing(sqlite3.connect(lab.database)) as database, database:
        for statement in statements:
            database.execute(statement)


def test_reading_commands_leave_a_lab_as_it_is(recorded, mhiflab, tmp_path):
    study, entries = recorded
    root = study.parent / "lab"
    before = contents(root)
    keys = [entry.key for entry in entries[:2]]
    for words in (
        ("plan", study, "--keys"),
        ("status", study),
        ("table", study, "--out", tmp_path / "out"),
        ("figure", study, "--kind", "curves", "--out", tmp_path / "out"),
        ("report", study, "--no-log", "--out", tmp_path / "out" / "page.html"),
        ("verify", study, "--rendered", tmp_path / "out"),
        ("compare", *keys, "--out", tmp_path / "out" / "two.html"),
        ("export", study, "--out", tmp_path / "archive"),
        ("gc", "--dry-run"),
    ):
        done = mhiflab(*words, "--lab", root)
        assert done.returncode == 0 or words[0] == "verify", done.stderr
        assert contents(root) == before, words
    with pytest.raises(Exception, match="readonly database"):
        recorded_store(Lab(root)).client.create_experiment("another")
    assert contents(root) == before


def test_commands_that_read_refuse_an_older_record_and_leave_it_alone(older, write_study, mhiflab):
    study, before = write_study(), contents(older.root)
    out = older.root.parent / "out"
    for words in (
        ("plan", study),
        ("status", study),
        ("table", study, "--out", out),
        ("figure", study, "--kind", "curves", "--out", out),
        ("report", study, "--out", out / "page.html"),
        ("compare", "abcdef", "fedcba", "--out", out / "two.html"),
        ("export", study, "--out", out),
        ("gc", "--dry-run"),
        ("stop", study),
        ("ui",),
    ):
        done = mhiflab(*words, "--lab", older.root)
        assert "error: " in done.stderr, words
        assert "found a record of an older MLflow" in done.stderr
        assert "`mhiflab run` or `mhiflab doctor --migrate` migrates it" in done.stderr
        assert contents(older.root) == before


def test_doctor_migrates_an_older_record_and_keeps_it_as_it_was(older, mhiflab):
    before = older.database.read_bytes()
    with pytest.raises(UserError, match="doctor --migrate"):
        open_store(older, tracking_uri(older))
    done = mhiflab("doctor", "--migrate", "--lab", older.root)
    (backup,) = older.root.glob("mlflow.db.*.backup")
    assert done.returncode == 0
    assert f"it is kept in {backup.name}" in done.stdout
    assert backup.read_bytes() == before
    assert [run.data.metrics for run in trial_runs(recorded_store(older)).values()] == [
        {"psnr": 30.0}
    ]
    assert "nothing to migrate" in mhiflab("doctor", "--migrate", "--lab", older.root).stdout
    assert sorted(path.suffix for path in older.root.iterdir()) == [".backup", ".db", ".lock"]


def test_doctor_migrates_nothing_on_a_cluster_or_a_server(mhiflab):
    done = mhiflab("doctor", "--migrate", "--address", "http://127.0.0.1:1")
    assert done.returncode == 1
    assert "doctor: found --migrate with 'http://127.0.0.1:1', expected it with" in done.stderr
    uri = "postgresql+psycopg2://u:secret@127.0.0.1:1/db"
    done = mhiflab("doctor", "--migrate", "--tracking-uri", uri)
    assert done.returncode == 1
    assert "--migrate: found the record postgresql+psycopg2://u:***@127.0.0.1:1/db" in done.stderr


def test_a_run_leaves_the_record_of_a_server_to_whoever_keeps_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert migrate_record(Lab(tmp_path / "lab")) == ""


def test_database_that_another_program_has_open_is_not_migrated(older):
    with closing(sqlite3.connect(older.database)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("SELECT * FROM runs").fetchone()
        with pytest.raises(UserError, match="another program has it open"):
            migrate(older.database)
    assert condition(older.database) == "older"


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        (["UPDATE alembic_version SET version_num = 'f00'"], r"newer MLflow \(MLflow \d.*f00\)"),
        (["CREATE TABLE _alembic_tmp_tags (key)"], "left half made.* it holds no run: delete it"),
        (["DELETE FROM alembic_version"], "left half made or half migrated"),
    ],
)
def test_what_others_left_is_named(statements, message, lab):
    change(lab, *statements)
    before = contents(lab.root)
    for opened in (lambda: existing_store(lab), lambda: open_store(lab, tracking_uri(lab))):
        with pytest.raises(UserError, match=message):
            opened()
    assert contents(lab.root) == before


def test_half_made_record_with_runs_is_not_to_be_deleted(lab):
    study_run(open_store(lab, tracking_uri(lab)), "demo", "")
    change(lab, "CREATE TABLE _alembic_tmp_tags (key)")
    with pytest.raises(UserError, match="restore a backup, it holds 1 runs"):
        existing_store(lab)


def test_files_that_are_no_record_are_named(tmp_path):
    lab = Lab(tmp_path)
    lab.database.write_text("no database " * 100)
    with pytest.raises(UserError, match=r"mlflow\.db: found a file that is no database"):
        existing_store(lab)
    lab.database.unlink()
    change(lab, "CREATE TABLE addresses (name)")
    with pytest.raises(UserError, match=r"a database of another program \(addresses\)"):
        open_store(lab, tracking_uri(lab))


def test_missing_database_is_not_made_by_reading(tmp_path, mhiflab, write_study):
    uri = f"sqlite:///{tmp_path}/new.db"
    done = mhiflab("plan", write_study(), MLFLOW_TRACKING_URI=uri)
    assert done.returncode == 0, done.stderr
    done = mhiflab("compare", "abcdef", "fedcba", MLFLOW_TRACKING_URI=uri)
    assert f"{tmp_path}/new.db: no record yet" in done.stderr
    assert not list(tmp_path.glob("*new.db*"))


def test_write_that_a_killed_process_left_is_taken_back_when_the_record_is_read(lab):
    uri = tracking_uri(lab)
    study_run(open_store(lab, uri), "demo", "")
    kill = (
        "import os, sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "database.execute('PRAGMA cache_size = 1')\n"
        "database.execute('BEGIN IMMEDIATE')\n"
        "database.execute('UPDATE runs SET name = hex(randomblob(20000))')\n"
        "database.execute('UPDATE tags SET value = hex(randomblob(9000))')\n"
        "os._exit(9)\n"
    )
    subprocess.run([sys.executable, "-c", kill, lab.database], check=False)
    assert lab.database.with_name("mlflow.db-journal").exists()
    store = existing_store(lab)
    assert store is not None
    assert len(find_runs(store, {"mhiflab.study": "demo"})) == 1


def test_copied_lab_is_read_from_its_own_artifacts_without_a_write(lab, tmp_path):
    study_run(open_store(lab, tracking_uri(lab)), "demo", "of the lab")
    copy = Lab(tmp_path / "it's a copy")
    shutil.copytree(lab.root, copy.root)
    (own,) = copy.root.rglob("study.yaml")
    own.write_text("of the copy")
    before = contents(copy.root)
    store = recorded_store(copy)
    (run,) = find_runs(store, {"mhiflab.study": "demo"})
    assert run.info.artifact_uri.startswith(copy.artifacts.as_uri())
    path = store.client.download_artifacts(run.info.run_id, "study.yaml")
    assert Path(path).read_text() == "of the copy"
    assert contents(copy.root) == before


def test_record_without_the_default_experiment_is_read(lab):
    for table in ("experiment_tags", "experiments"):
        change(lab, f"DELETE FROM {table} WHERE experiment_id = 0")
    assert existing_store(lab) is not None


START = """
import sys, time
from pathlib import Path
from mhiflab.environment import quieten
quieten()
from mhiflab.paths import Lab
from mhiflab.record.store import open_store, tracking_uri
from mhiflab.record.studies import study_run
lab = Lab(Path(sys.argv[1]))
time.sleep(max(0, float(sys.argv[2]) - time.time()))
store = open_store(lab, tracking_uri(lab))
study_run(store, lab.root.name, "")
"""


def test_eight_drivers_make_one_new_record_between_them(tmp_path):
    import time

    uri = "sqlite:///new.db"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": uri}
    start = str(time.time() + 15)
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(tmp_path / f"lab{i}"), start],
            cwd=tmp_path,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(8)
    ]
    errors = [driver.communicate(timeout=400)[1] for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0] * 8, errors
    database = tmp_path / "new.db"
    assert condition(database) == "current"
    client = MlflowClient(tracking_uri=f"sqlite:///{database}")
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert WRITER_TAG in experiment.tags
    assert len(client.search_runs([experiment.experiment_id])) == 8
    assert sorted(path.name for path in tmp_path.glob("*new.db*")) == [".new.db.lock", "new.db"]


def test_migrating_twice_does_it_once(older):
    assert migrate_record(older)
    assert migrate_record(older) == ""
