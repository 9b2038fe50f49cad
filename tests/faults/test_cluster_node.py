"""A node of a cluster dies in the middle of a submitted study: `pytest -m faults -s`."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import namespaces
import psutil
import pytest
import yaml
from mlflow import MlflowClient
from places import ROOT
from tiny import TINY

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(not namespaces.possible(), reason="needs root and network namespaces"),
]
EPOCHS = 60


@contextmanager
def record_server(nodes: namespaces.Nodes, folder: Path) -> Iterator[str]:
    """Yield the address of an MLflow server on the head, as cluster.yaml starts it."""
    host = nodes.address(0)
    words = [str(namespaces.BIN / "mlflow"), "server", "--host", host, "--port", "5000"]
    words += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts"]
    words += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    words += ["--allowed-hosts", f"{host}:5000,127.0.0.1:5000"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            nodes.inside(0, *words), env=nodes.environment, stdout=log, stderr=log
        )
    uri = f"http://{host}:5000"
    ask = f"import urllib.request as u; u.urlopen('{uri}/health', timeout=2)"
    namespaces.wait_for(
        lambda: nodes.call(sys.executable, "-c", ask).returncode == 0, 120, "MLflow"
    )
    yield uri
    assert server.poll() is None


def trains(process: psutil.Process) -> bool:
    try:
        return "RayTrainWorker" in " ".join(process.cmdline())
    except psutil.Error:
        return False


def test_a_study_survives_the_loss_of_a_node(tmp_path):
    base = {**TINY["base"], "resources": {"workers": 1}}
    base["train"] = {**base["train"], "epochs": EPOCHS}
    study = tmp_path / "four.yaml"
    study.write_text(yaml.safe_dump({**TINY, "base": base, "seeds": [1, 2]}))
    lab = tmp_path / "lab"
    lab.mkdir()
    words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True)

    with (
        namespaces.cluster(tmp_path, count=3, cpus=1) as nodes,
        record_server(nodes, tmp_path) as uri,
    ):
        say("three nodes and MLflow are up")
        where = ["--lab", str(lab), "--tracking-uri", uri]

        def start(*words: str) -> subprocess.Popen:
            return subprocess.Popen(
                nodes.inside(0, sys.executable, "-m", "mhiflab", *words),
                env={**nodes.environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

        look = start("doctor", str(study), "--address", "http://127.0.0.1:8265", *where)
        say(f"doctor:\n{look.communicate(timeout=200)[0]}")

        job = start("submit", str(study), *where)
        states = lab / "checkpoints"
        namespaces.wait_for(lambda: len(list(states.glob("*/state.pt"))) >= 3, 240, "training")
        job.send_signal(signal.SIGINT)
        left = job.communicate(timeout=30)[0]
        assert job.returncode == 130
        assert "The job goes on" in left
        job = start("submit", str(study), *where)
        busy = {n: sum(map(trains, nodes.of_node(n))) for n in range(3)}
        say(f"Train workers by node: {busy}; node 1 is killed")
        assert busy[1] == 1
        assert "raylet" in nodes.kill(1)
        first = job.communicate(timeout=500)[0]
        say(f"attached submission ended with {job.returncode}:\n{first}")
        assert "runs there already" in first
        if job.returncode:
            job = start("submit", str(study), *where)
            say(f"submitted again:\n{job.communicate(timeout=500)[0]}")
        assert job.returncode == 0
        assert stopped(start, study, where) == "stopped"
        say("a further job was stopped")

    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("mhiflab")
    done = "tags.`mhiflab.kind` = 'trial' and attributes.status = 'FINISHED'"
    runs = client.search_runs([experiment.experiment_id], done)
    assert len(runs) == 4
    for run in runs:
        steps = {m.step for m in client.get_metric_history(run.info.run_id, "loss")}
        assert steps == set(range(1, EPOCHS + 1))
        assert run.data.tags["mhiflab.git_commit"] == commit


def stopped(start, study: Path, where: list[str]) -> str:
    """Submit a study of its own, stop it, and return what the command says."""
    other = study.with_name("other.yaml")
    other.write_text(study.read_text().replace("seeds:\n- 1\n- 2", "seeds:\n- 3"))
    job = start("submit", str(other), *where)
    job_id = job.stdout.readline().split()[-1]
    ended = start("submit", "--stop", job_id).communicate(timeout=60)[0]
    assert "stopped" in job.communicate(timeout=60)[0]
    assert job.returncode == 1
    return ended.split()[-1]
