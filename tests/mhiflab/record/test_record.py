"""The record of a run through outages, kills and repetitions."""

import json
import multiprocessing
import os
import random
import subprocess
import sys
import threading
import time
import uuid
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INVALID_PARAMETER_VALUE,
    RESOURCE_ALREADY_EXISTS,
    TEMPORARILY_UNAVAILABLE,
)
from places import ROOT

from feinfn.errors import UserError
from feinfn.files import write_bytes
from mhiflab.paths import Lab
from mhiflab.record import store as store_module
from mhiflab.record import tag
from mhiflab.record import writer as record_module
from mhiflab.record.artifacts import artifact_file
from mhiflab.record.database.errors import explain, without_passwords
from mhiflab.record.finished import RecordedRun
from mhiflab.record.run_folder import Part, RunFolder
from mhiflab.record.store import (
    clear_stop,
    connect,
    open_store,
    stop_run,
    tracking_uri,
    trial_runs,
)
from mhiflab.record.upload import Upload
from mhiflab.record.writer import Record, finish_study, trial_record, upload_waiting_folders

DEAD = "http://127.0.0.1:1"
"""Nothing listens there."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Lab:
    lab = Lab(tmp_path_factory.mktemp("record") / "lab")
    open_store(lab, tracking_uri(lab))
    return lab


def opened(lab: Lab, key: str, uri: str = "") -> Record:
    return trial_record(
        lab, uri or tracking_uri(lab), key, "a seed 1", "parent", {"mhiflab.a": "b"}
    )


def write(record: Record, steps: range) -> None:
    record.settings({"train.lr": 1e-3}, {"mhiflab.protocol": "p"})
    fields = {"name": "d", "digest": "0", "source_type": "local", "source": "{}", "profile": "{}"}
    record.datasets({"training": fields})
    for step in steps:
        record.metrics(step, {"loss": 1 / step, "seconds": time.perf_counter()})
    record.text("table", "table.csv")
    record.json({"a": 1}, "model/config.json")


def state(lab: Lab, key: str) -> dict:
    """Return everything that the store holds of a run but its id."""
    store = open_store(lab, tracking_uri(lab))
    run = trial_runs(store)[key]
    client, run_id = store.client, run.info.run_id
    files = {item.path for item in client.list_artifacts(run_id) if not item.is_dir}
    files |= {item.path for item in client.list_artifacts(run_id, "model")}
    points = {
        name: [
            (p.step, p.timestamp, p.value) for p in store.client.get_metric_history(run_id, name)
        ]
        for name in ("loss", "seconds")
    }
    inputs = [(i.dataset.name, i.tags[0].value) for i in run.inputs.dataset_inputs]
    info = (run.info.status, run.info.start_time, run.info.end_time, run.info.run_name)
    return {
        "info": info,
        "params": run.data.params,
        "tags": run.data.tags,
        "points": points,
        "files": files,
        "inputs": inputs,
    }


def test_finished_run_is_complete_and_leaves_no_folder(lab):
    key = uuid.uuid4().hex
    with opened(lab, key) as record:
        write(record, range(1, 4))
        record.finish()
    found = state(lab, key)
    assert found["info"][0] == "FINISHED"
    start = found["info"][1]
    assert [p[:2] for p in found["points"]["loss"]] == [(s, start + s) for s in (1, 2, 3)]
    assert found["files"] == {"table.csv", "model/config.json"}
    assert found["inputs"] == [("d", "training")]
    assert found["params"] == {"train.lr": "0.001"}
    assert not (lab.runs / key).exists()


def unapplied(lab: Lab, key: str) -> Path:
    """Write a whole journal that reaches no store, with a run that was cut off and continued."""
    quiet = pytest.MonkeyPatch()
    with quiet.context() as patch:
        patch.setattr(record_module, "DRAIN_S", 0.0)
        patch.setattr(Upload, "advance", lambda self, stopped: time.sleep(0.01))
        first = opened(lab, key)
        write(first, range(1, 4))
        first.close(5)
        # The third epoch is repeated, with other seconds.
        second = opened(lab, key)
        write(second, range(3, 6))
        second.add(Part(status="FINISHED", ended_ms=2_000_000_000_000))
        # Not `ended`, because nothing was applied: the folder stays.
        second.close(5)
    return lab.runs / key / "journal.jsonl"


@settings(max_examples=12, deadline=None)
@given(
    cuts=st.lists(st.floats(0, 1), max_size=3),
    repeats=st.lists(st.integers(1, 2), min_size=1, max_size=2),
)
def test_any_cut_and_any_repetition_give_the_same_state(lab, cuts, repeats):
    key = uuid.uuid4().hex
    journal = unapplied(lab, key)
    whole, uri = journal.read_bytes(), tracking_uri(lab)
    for cut in sorted(cuts):
        # What a kill leaves, its last line torn, applied from the top.
        journal.write_bytes(whole[: int(cut * len(whole))])
        apply(lab, key, uri)
    journal.write_bytes(whole)
    for count in repeats:
        for _ in range(count):
            apply(lab, key, uri)
    assert upload_waiting_folders(lab, uri).waiting == 0
    found = state(lab, key)
    lines = [json.loads(line) for line in whole.splitlines()]
    start = lines[0]["started_ms"]
    assert found["info"] == ("FINISHED", start, 2_000_000_000_000, "a seed 1")
    first = {}
    for line in lines:
        for name, points in line.get("metrics", {}).items():
            for step, value in points:
                first.setdefault(name, {}).setdefault(step, value)
    for name, values in first.items():
        assert found["points"][name] == [(s, start + s, values[s]) for s in range(1, 6)]
    assert found["files"] == {"table.csv", "model/config.json"}
    assert found["inputs"] == [("d", "training")]
    assert tag.REFUSED not in found["tags"]
    assert not journal.parent.exists()


def apply(lab: Lab, key: str, uri: str) -> None:
    with closing(RunFolder(lab.runs / key)) as folder:
        Upload(partial(connect, lab, uri), folder).advance()


def test_unreachable_store_delays_the_end_by_a_bound_and_an_upload_completes(lab, monkeypatch):
    monkeypatch.setattr(record_module, "DRAIN_S", 1.0)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    key = uuid.uuid4().hex
    started = time.perf_counter()
    with opened(lab, key, DEAD) as record:
        write(record, range(1, 51))
        # Who waited for this store would do so for ever; a busy disk takes its time, too.
        assert time.perf_counter() - started < 60
        closing = time.perf_counter()
        record.close(record_module.DRAIN_S)
        assert time.perf_counter() - closing < 30
    record._thread.join(20)
    waiting = upload_waiting_folders(lab, DEAD)
    assert (waiting.uploaded, waiting.waiting) == (0, 1)
    assert "cannot be reached" in waiting.reason
    assert upload_waiting_folders(lab, tracking_uri(lab)).uploaded == 1
    assert [p[0] for p in state(lab, key)["points"]["loss"]] == list(range(1, 51))


def test_writer_that_begins_after_it_was_stopped_does_not_undo_that(lab):
    key, store = uuid.uuid4().hex, open_store(lab, tracking_uri(lab))
    opened(lab, key).close()
    stop_run(store, trial_runs(store)[key].info.run_id, 1)
    opened(lab, key).close()
    assert trial_runs(store)[key].data.tags[tag.STOPPED] == "1"
    upload_waiting_folders(lab, tracking_uri(lab))
    assert trial_runs(store)[key].data.tags[tag.STOPPED] == "1"
    clear_stop(store, trial_runs(store)[key])
    assert tag.STOPPED not in trial_runs(store)[key].data.tags


def test_uploading_what_a_stopped_writer_left_does_not_open_its_run_again(lab, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    key, store = uuid.uuid4().hex, open_store(lab, tracking_uri(lab))
    opened(lab, key).close()
    stop_run(store, trial_runs(store)[key].info.run_id, 1)
    # Ended before it could bring its last lines.
    again = opened(lab, key, DEAD)
    again.metrics(1, {"loss": 1.0})
    again.close(0)
    again._thread.join(20)
    assert upload_waiting_folders(lab, tracking_uri(lab)).uploaded == 1
    run = trial_runs(store)[key]
    assert (run.info.status, run.data.tags[tag.STOPPED]) == ("KILLED", "1")
    assert run.data.metrics["loss"] == 1.0
    assert not (lab.runs / key).exists()


def test_refused_entries_are_noted_and_do_not_block(lab):
    key = uuid.uuid4().hex
    for lr in (1, 2):
        with opened(lab, key) as record:
            record.settings({"lr": lr, f"new_{lr}": 0}, {})
            record.metrics(1, {"bad [name]": 1.0, "loss": 0.5})
            record.finish()
    store = open_store(lab, tracking_uri(lab))
    run = trial_runs(store)[key]
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "1", "new_1": "0", "new_2": "0"}
    assert RecordedRun(store, run).history("loss") == {1: 0.5}
    noted = run.data.tags[tag.REFUSED]
    assert "lr: MLflow store" in noted
    assert "bad [name]" in noted
    assert "cannot be reached" not in noted


def test_run_deleted_while_it_is_written_is_made_again_whole(lab):
    key, store = uuid.uuid4().hex, open_store(lab, tracking_uri(lab))
    with opened(lab, key) as record:
        record.metrics(1, {"loss": 1.0})
        until(lambda: key in trial_runs(store))
        store.client.delete_run(trial_runs(store)[key].info.run_id)
        record.metrics(2, {"loss": 0.5})
        record.finish()
    upload_waiting_folders(lab, store.uri)
    run = trial_runs(store)[key]
    assert RecordedRun(store, run).history("loss") == {1: 1.0, 2: 0.5}


def until(true, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_failed_run_says_why_and_success_clears_it(lab):
    key = uuid.uuid4().hex
    with opened(lab, key) as record:
        record.fail("the loss was nan", "Traceback ...")
    store = open_store(lab, tracking_uri(lab))
    assert trial_runs(store)[key].data.tags[tag.ERROR] == "the loss was nan"
    assert trial_runs(store)[key].info.status == "FAILED"
    with opened(lab, key) as record:
        record.finish()
    assert tag.ERROR not in trial_runs(store)[key].data.tags
    finish_study(lab, store.uri, "s", complete=True)


def test_second_writer_waits_and_is_told_when_it_waits_too_long(tmp_path):
    first = RunFolder(tmp_path / "run")
    with pytest.raises(UserError, match="another process still writes the record"):
        RunFolder(tmp_path / "run", wait_s=0.2)
    threading.Timer(0.3, lambda: (first.remove(), first.close())).start()
    second = RunFolder(tmp_path / "run", wait_s=10)
    second.append(Part(name="a"))
    assert [part for part, _ in second.parts()] == [Part(name="a")]
    second.close()


def test_folder_that_another_takes_while_it_is_removed_stays(tmp_path, monkeypatch):
    first, remove = RunFolder(tmp_path / "run"), os.rmdir
    first.keep(Path(__file__), "model/file")
    second: list[RunFolder] = []

    def rmdir(path, **options) -> None:
        if Path(path).name == "run" and not second:
            second.append(RunFolder(tmp_path / "run", wait_s=0))
            second[0].append(Part(name="a"))
            second[0].keep(Path(__file__), "file")
        remove(path, **options)

    monkeypatch.setattr(os, "rmdir", rmdir)
    first.remove()
    first.close()
    (other,) = second
    assert [part for part, _ in other.parts()] == [Part(name="a")]
    assert len(list((tmp_path / "run" / "files").iterdir())) == 1
    other.remove()
    other.close()
    assert not list(tmp_path.iterdir())


def test_damaged_line_is_named_and_never_skipped(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").write_bytes(b'{"name": "a"}\nnonsense\n{}\n')
    found = upload_waiting_folders(Lab(tmp_path / "lab"), DEAD)
    assert (found.uploaded, found.waiting) == (0, 0)
    (tmp_path / "lab").mkdir()
    (tmp_path / "run").rename(tmp_path / "lab" / "run")
    (tmp_path / "lab" / "runs").mkdir()
    (tmp_path / "lab" / "run").rename(tmp_path / "lab" / "runs" / "run")
    found = upload_waiting_folders(Lab(tmp_path / "lab"), DEAD)
    assert found.waiting == 1
    assert "found a damaged line at byte 14" in found.reason


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://user:pass@host/db", "postgresql://user:***@host/db"),
        ("postgresql+psycopg2://u:p%40s:s/x@h:5/db", "postgresql+psycopg2://u:***@h:5/db"),
        ("postgresql://u:a@b@host/db", "postgresql://u:***@host/db"),
        (
            "postgresql://h/db?user=u&password=secret&x=1",
            "postgresql://h/db?user=u&password=***&x=1",
        ),
        ("http://name:word@127.0.0.1:5000", "http://name:***@127.0.0.1:5000"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:///lab/mlflow.db", "sqlite:///lab/mlflow.db"),
    ],
)
def test_passwords_are_never_shown(uri, expected):
    assert without_passwords(uri) == expected
    error = OSError(f"no answer from {uri}/api (of {uri!r})")
    assert without_passwords(uri) in explain(uri, error)
    for word in ("pass@", "secret&", "word@", "p%40s", "a@b"):
        assert word not in explain(uri, error)


def test_an_outage_and_a_refusal_are_told_apart():
    down = MlflowException("database is locked", TEMPORARILY_UNAVAILABLE)
    changed = MlflowException("Changing param values is not allowed", INVALID_PARAMETER_VALUE)
    assert "cannot be reached" in explain(DEAD, down)
    assert "refused what was asked" in explain(DEAD, changed)
    assert "cannot be reached" not in explain(DEAD, changed)


def keep_writing(lab: Lab, key: str, last: int) -> None:
    """Continue a run from its last epoch, as a trial does: told first, saved then."""
    saved = lab.root / f"{key}.epoch"
    with opened(lab, key) as record:
        write(record, range(0))
        for epoch in range(int(saved.read_text()) + 1 if saved.is_file() else 1, last + 1):
            record.metrics(epoch, {"loss": 1 / epoch, "seconds": time.perf_counter()})
            time.sleep(0.02)
            write_bytes(saved, str(epoch).encode())
        record.finish()


def test_killed_writer_that_continues_has_each_step_once(lab):
    key, draw, last = uuid.uuid4().hex, random.Random(7), 40
    spawn, journal = multiprocessing.get_context("spawn"), lab.runs / key / "journal.jsonl"

    def lines() -> int:
        return journal.read_bytes().count(b"\n") if journal.is_file() else 0

    for _ in range(4):
        before = lines()
        process = spawn.Process(target=keep_writing, args=(lab, key, last))
        process.start()
        # In the middle of its work, or after all of it where this process was kept waiting.
        until(lambda p=process, n=before: lines() > n or not p.is_alive())
        time.sleep(draw.uniform(0, 0.5))
        process.kill()
        process.join()
    keep_writing(lab, key, last)
    found = state(lab, key)
    assert found["info"][0] == "FINISHED"
    for name in ("loss", "seconds"):
        assert [p[0] for p in found["points"][name]] == list(range(1, last + 1))
    assert found["files"] == {"table.csv", "model/config.json"}


def test_four_processes_write_one_database_and_lose_nothing(tmp_path):
    words = [sys.executable, str(ROOT / "experiments" / "bench" / "writers.py"), "--writers", "4"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=400, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "points               2000      2000" in done.stdout


def test_experiment_that_a_server_hides_is_its_own_error(tmp_path, monkeypatch):
    class Hiding:
        def __init__(self, tracking_uri: str) -> None: ...

        def get_experiment_by_name(self, name: str) -> None: ...

        def search_experiments(self, stage: int) -> list:
            return []

        def create_experiment(self, *given: object) -> str:
            raise MlflowException("it exists already", RESOURCE_ALREADY_EXISTS)

    monkeypatch.setattr(store_module, "MlflowClient", Hiding)
    with pytest.raises(MlflowException, match="it exists already"):
        connect(Lab(tmp_path), "http://127.0.0.1:1")


def test_artifacts_of_this_machine_are_read_in_place_and_others_are_copied(tmp_path):
    lab = Lab(tmp_path / "a bä")
    store = open_store(lab, tracking_uri(lab))
    run = store.client.create_run(store.experiment_id)
    run_id, uri = run.info.run_id, run.info.artifact_uri
    store.client.log_text(run_id, "text", "a.txt")
    with artifact_file(store, run_id, "a.txt", uri) as path:
        assert path.is_relative_to(lab.artifacts.resolve())
        assert path.read_text() == "text"
    for other in ("", "mlflow-artifacts:/1", tmp_path.as_uri()):
        with artifact_file(store, run_id, "a.txt", other) as copy:
            assert copy != path
            assert copy.read_text() == "text"
    with (
        pytest.raises(UserError, match=r"artifact b\.txt is missing"),
        artifact_file(store, run_id, "b.txt", uri),
    ):
        pass
