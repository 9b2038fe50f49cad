"""Retry, status, stop and gc, as a user types them."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest
import torch
from mlflow import MlflowClient
from test_study import next_state, runs
from tiny import ONE_OF_EACH, TINY, job_of

from feinfn.training.train import Report, train
from mhiflab.execute import worker
from mhiflab.paths import Lab
from mhiflab.plan.plan import read_plan
from mhiflab.record import tag
from mhiflab.record.store import open_store, tracking_uri, trial_runs
from mhiflab.record.studies import study_run


def test_failures_wait_for_retry_and_gc_keeps_what_continues(
    mhiflab, without_ray, write_study, tmp_path
):
    cases = {
        "diverging": {"label": "diverging", "set": {"train.lr": 1e30}},
        "good": {"label": "good", "set": {}},
    }
    study = write_study(cases=cases, base={**TINY["base"], "data": ONE_OF_EACH})
    assert mhiflab("run", study).returncode == 1
    planned = mhiflab("plan", study, "--keys").stdout
    assert "0 of 2 trials to execute (1 done, 1 failed)" in planned
    assert "diverging, seed 1 failed: training diverged" in planned
    # Asked again, `run` executes nothing; `retry` executes the failure and nothing else.
    before = ended(tmp_path)
    again = mhiflab("run", study)
    assert "runs are missing" in again.stderr
    assert ended(tmp_path) == before
    retried = mhiflab("retry", study)
    assert "1 of 1 trials failed" in retried.stderr
    after = ended(tmp_path)
    assert after["good"] == before["good"]
    assert after["diverging"] > before["diverging"]
    shown = mhiflab("status", study).stdout
    assert "good" in shown
    assert "2/2" in shown

    folder = tmp_path / "lab" / "checkpoints"
    orphan = folder / ("0" * 64)
    orphan.mkdir()
    (orphan / "state.pt").write_bytes(b"x" * 2**20)
    foreign = folder / "notes"
    foreign.mkdir()
    kept = sorted(p.name for p in folder.iterdir())
    told = mhiflab("gc", "--dry-run").stdout
    assert "no run on record" in told
    assert "its run is finished" in told
    assert "cache  (scores of upsampled images, made again when needed)" in told
    assert sorted(p.name for p in folder.iterdir()) == kept
    assert mhiflab("gc").returncode == 0
    failed = next(
        r for r in runs(tmp_path / "lab")[1] if r.info.status == "FAILED" and tag.KEY in r.data.tags
    )
    left = {p.name for p in folder.iterdir()}
    assert left <= {"notes", failed.data.tags[tag.KEY]}
    assert "notes" in left
    assert not (tmp_path / "lab" / "cache").exists()
    assert "0.0 MiB in 0 places removed" in mhiflab("gc").stdout


def ended(tmp_path) -> dict[str, int]:
    """Return when each case's run ended."""
    _, recorded = runs(tmp_path / "lab")
    return {
        r.data.tags["mhiflab.case"]: r.info.end_time
        for r in recorded
        if r.data.tags[tag.KIND] == "trial"
    }


def test_stop_ends_a_driver_and_its_trials_continue(mhiflab, write_study, tmp_path):
    train = {**TINY["base"]["train"], "epochs": 3000}
    base = {**TINY["base"], "data": ONE_OF_EACH, "train": train}
    study = write_study(base=base, cases={})
    words = [sys.executable, "-m", "mhiflab", "run", str(study)]
    log = (tmp_path / "log").open("w")
    # In the background of a script, where Ctrl-C is ignored.
    words = ["bash", "-c", '"$@" & wait $!', "bash", *words]
    driver = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    try:
        stop_and_look(mhiflab, study, tmp_path, driver)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(driver.pid, signal.SIGKILL)


def stop_and_look(mhiflab, study, tmp_path, driver: subprocess.Popen) -> None:
    """Stop a running driver, after a second one was refused, and see what it leaves."""
    next_state(tmp_path / "lab" / "checkpoints", driver)
    assert "running" in mhiflab("plan", study).stdout
    second = mhiflab("run", study)
    assert second.returncode == 1
    assert "another mhiflab run is at work in this folder" in second.stderr
    assert "asked process" in mhiflab("stop", study).stdout
    assert driver.wait(timeout=200) == 1
    assert "stopped; finished trials are on record" in (tmp_path / "log").read_text()
    shown = mhiflab("status", study).stdout
    assert "resume" in shown
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'lab' / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mhiflab")
    status = [r.info.status for r in client.search_runs([experiment.experiment_id])]
    assert "RUNNING" not in status


def test_run_lost_in_its_tests_knows_its_size_and_late_warnings_are_reported(
    write_study, tmp_path, monkeypatch
):
    def train_warning(*given, warn, **words):
        *others, on_epoch = given

        def then_warn(result: Report) -> None:
            on_epoch(result)
            warn(f"after {result.epoch}")

        return train(*others, then_warn, warn=warn, **words)

    def lose(*given) -> None:
        raise SystemExit

    (entry,) = read_plan(write_study(cases={})).entries
    lab = Lab(tmp_path / "lab")
    store = open_store(lab, tracking_uri(lab))
    job = job_of(entry, lab, tracking_uri(lab), study_run(store, "tiny", ""))
    told: list = []
    with monkeypatch.context() as patched:
        patched.setattr(worker, "train", train_warning)
        patched.setattr(worker, "_record_tests", lose)
        with pytest.raises(SystemExit):
            worker.run_worker(job, torch.device("cpu"), told.append)
    assert [values.get("warning") for values in told] == [None, "after 1"]
    worker.run_worker(job, torch.device("cpu"), told.append)
    assert len([values for values in told if "epoch" in values]) == 2
    assert trial_runs(store)[entry.key].data.metrics["parameters"] > 0
