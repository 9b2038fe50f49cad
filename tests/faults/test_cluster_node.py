"""A node of a cluster dies in the middle of a submitted study: `pytest -m faults`."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import namespaces
import pytest
import yaml
from mlflow import MlflowClient

ROOT = Path(__file__).parents[2]
sys.path.append(str(ROOT / "tests" / "mhiflab"))
from tiny import TINY  # noqa: E402

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not namespaces.possible(), reason="needs root and network namespaces"),
]
EPOCHS = 60


def test_a_study_survives_the_loss_of_a_node(tmp_path):
    base = {**TINY["base"], "resources": {"workers": 1}}
    base["train"] = {**base["train"], "epochs": EPOCHS}
    study = tmp_path / "four.yaml"
    study.write_text(yaml.safe_dump({**TINY, "base": base, "seeds": [1, 2]}))
    lab = tmp_path / "lab"
    lab.mkdir()
    with namespaces.cluster(tmp_path, count=3, cpus=1) as nodes:
        record = f"http://{nodes.address(0)}:5000"
        words = [str(namespaces.BIN / "mlflow"), "server", "--host", nodes.address(0)]
        words += ["--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--serve-artifacts"]
        words += ["--artifacts-destination", str(tmp_path / "artifacts"), "--workers", "1"]
        words += ["--allowed-hosts", f"{nodes.address(0)}:5000"]
        server = subprocess.Popen(
            nodes.inside(0, *words),
            env=nodes.environment,
            stdout=(tmp_path / "server.log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        ask = f"import urllib.request as u; u.urlopen('{record}/health', timeout=2)"
        namespaces.wait_for(
            lambda: nodes.call(sys.executable, "-c", ask).returncode == 0, 90, "MLflow"
        )

        submitted = ["submit", str(study), "--lab", str(lab), "--tracking-uri", record]

        def submit() -> subprocess.Popen:
            return subprocess.Popen(
                nodes.inside(0, sys.executable, "-m", "mhiflab", *submitted),
                env={**nodes.environment, "PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

        started = time.monotonic()

        def say(text: str) -> None:
            print(f"[{time.monotonic() - started:6.1f} s] {text}", flush=True)

        job = submit()
        # All three nodes train once three trials have a training state.
        namespaces.wait_for(
            lambda: len(list(lab.glob("checkpoints/*/state.pt"))) >= 3, 180, "train"
        )
        training = {n: p for n in (1, 2) for p in nodes.of_node(n) if "TrainWorker" in title(p)}
        say(f"trials on nodes {sorted(training)}; node 1 is killed")
        killed = nodes.kill(1)
        assert "raylet" in killed
        first = job.communicate(timeout=400)[0]
        say(f"first submission ended with {job.returncode}:\n{first}")
        if job.returncode:
            job = submit()
            second = job.communicate(timeout=400)[0]
            say(f"second submission ended with {job.returncode}:\n{second}")
        assert job.returncode == 0
        assert server.poll() is None
        os.environ["MLFLOW_TRACKING_URI"] = ""
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("mhiflab")
    runs = client.search_runs([experiment.experiment_id], "tags.`mhiflab.kind` = 'trial'")
    assert [run.info.status for run in runs] == ["FINISHED"] * 4
    for run in runs:
        steps = [m.step for m in client.get_metric_history(run.info.run_id, "loss")]
        assert sorted(set(steps)) == list(range(1, EPOCHS + 1))
        assert run.data.tags["mhiflab.git_commit"] == commit()
    assert re.search(r"tables?|Tables", first)
    assert json.dumps(killed)


def title(process) -> str:
    try:
        return " ".join(process.cmdline())
    except Exception:
        return ""


def commit() -> str:
    words = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()
