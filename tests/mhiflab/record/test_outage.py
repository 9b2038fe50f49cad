"""A real training against a real MLflow server that is killed in the middle."""

import time

import pytest
import torch
from mlflow_server import Server
from test_record import until
from test_study import ARTIFACTS, artifacts
from tiny import TINY, job_of

from mhiflab.environment import ENVIRONMENT
from mhiflab.execute.worker import run_worker
from mhiflab.paths import Lab
from mhiflab.plan.plan import read_plan
from mhiflab.record.store import open_store, trial_runs
from mhiflab.record.studies import study_run
from mhiflab.record.writer import DRAIN_S, upload_waiting_folders

EPOCHS = 6
SLOW_S = 30.0
"""Seconds by which a machine may be slower in the second training than in the first."""


@pytest.fixture
def server(tmp_path, monkeypatch):
    # As in every process of a study: MLflow by itself would ask a dead server again and again, with
    # pauses of minutes in which the writer keeps the folder.
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    server = Server(tmp_path)
    try:
        server.start()
        yield server
    finally:
        server.kill()


def test_training_survives_the_death_of_its_server_and_its_record_is_whole_in_the_end(
    server, write_study, tmp_path
):
    train = {**TINY["base"]["train"], "epochs": EPOCHS}
    study = write_study(cases={}, seeds=[1, 2], base={**TINY["base"], "train": train})
    lab = Lab(tmp_path / "lab")
    store = open_store(lab, server.uri)
    parent = study_run(store, "tiny", "")
    took = {}
    for entry in read_plan(study).entries:
        seed = entry.trial.spec.seed
        job = job_of(entry, lab, server.uri, parent)

        def report(metrics: dict, seed: int = seed) -> None:
            if seed == 2 and metrics.get("epoch") == 2:
                server.kill()

        started = time.perf_counter()
        run_worker(job, torch.device("cpu"), report)
        took[seed] = time.perf_counter() - started
    # Who waited at every entry for the server to answer would take minutes.
    assert took[2] < 2 * took[1] + DRAIN_S + SLOW_S
    assert server.process is None
    assert upload_waiting_folders(lab, server.uri).waiting == 1

    server.start()
    # By the upload, or by the writer's own last attempt.
    until(lambda: upload_waiting_folders(lab, server.uri).waiting == 0)
    assert not list(lab.runs.iterdir())
    runs = trial_runs(store)
    assert [run.info.status for run in runs.values()] == ["FINISHED", "FINISHED"]
    for run in runs.values():
        assert artifacts(store.client, run.info.run_id) - {"uncommitted.diff"} == ARTIFACTS
        for name in ("loss", "train_seconds", "val_psnr", "system/cpu_utilization_percentage"):
            history = store.client.get_metric_history(run.info.run_id, name)
            assert [point.step for point in history] == list(range(1, EPOCHS + 1))
