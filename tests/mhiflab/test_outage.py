"""A real training against a real MLflow server that is killed in the middle."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import torch
from test_record import until
from test_study import ARTIFACTS, artifacts
from tiny import TINY

from mhiflab.paths import Lab
from mhiflab.plan import read_plan
from mhiflab.provenance import code_provenance
from mhiflab.record import DRAIN_S, replay
from mhiflab.tracking import open_store, study_run, trial_runs
from mhiflab.worker import Job, run_worker

EPOCHS = 6


class Server:
    """A real MLflow server on loopback."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        words = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
        words += ["--port", str(self.port), "--artifacts-destination", str(self.folder / "files")]
        words += ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        log = (self.folder / "server.log").open("a")
        self.process = subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)
        until(self._answers, 90)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as reply:
                return reply.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path):
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
        job = Job(
            spec=entry.trial.spec,
            resources=entry.trial.resources,
            survey=entry.survey,
            key=entry.key,
            case="c",
            label="c",
            study="tiny",
            parent=parent,
            lab=lab,
            uri=server.uri,
            scratch=tmp_path,
            code=code_provenance(),
        )

        def report(metrics: dict, seed: int = seed) -> None:
            if seed == 2 and metrics["epoch"] == 2:
                server.kill()

        started = time.perf_counter()
        run_worker(job, torch.device("cpu"), report)
        took[seed] = time.perf_counter() - started
    assert took[2] < 2 * took[1] + DRAIN_S
    assert server.process is None
    assert replay(lab, server.uri).waiting == 1

    server.start()
    # By the replay, or by the writer's own last attempt.
    until(lambda: replay(lab, server.uri).waiting == 0)
    assert not list(lab.spool.iterdir())
    runs = trial_runs(store)
    assert [run.info.status for run in runs.values()] == ["FINISHED", "FINISHED"]
    for run in runs.values():
        assert artifacts(store.client, run.info.run_id) - {"uncommitted.diff"} == ARTIFACTS
        for name in ("loss", "train_seconds", "val_psnr", "system/cpu_utilization_percentage"):
            history = store.client.get_metric_history(run.info.run_id, name)
            assert [point.step for point in history] == list(range(1, EPOCHS + 1))
