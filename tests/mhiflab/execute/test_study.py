"""A study from the command line to the table, on a real Ray and a real MLflow store."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from places import SAMPLE
from safetensors import safe_open
from safetensors.torch import load_file
from tiny import ONE_OF_EACH, TINY, job_of

from feinfn.config import ModelConfig
from feinfn.data.source import embedded_scenes
from feinfn.errors import UserError
from feinfn.methods.feinfn.model import FeINFN
from feinfn.metrics.conventions import CONVENTIONS
from mhiflab.execute.worker import run_worker
from mhiflab.paths import Lab
from mhiflab.plan.plan import read_plan
from mhiflab.record import tag
from mhiflab.record.store import open_store, tracking_uri, trial_runs
from mhiflab.record.studies import study_run
from mhiflab.record.writer import trial_record
from mhiflab.study.settings import flatten

ARTIFACTS = {
    "identity.json",
    "metrics_bands.csv",
    "metrics_test.csv",
    "model/MLmodel",
    "model/best.safetensors",
    "model/conda.yaml",
    "model/config.json",
    "model/input_example.json",
    "model/protocol.json",
    "model/python_env.yaml",
    "model/requirements.txt",
    "model/serving_input_example.json",
    "model/wavelengths_nm.json",
    "provenance.json",
    "quicklook.npz",
    "spec.json",
}


def runs(lab: Path) -> tuple[MlflowClient, list]:
    client = MlflowClient(tracking_uri=f"sqlite:///{lab / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mhiflab")
    return client, client.search_runs([experiment.experiment_id])


def artifacts(client: MlflowClient, run_id: str) -> set[str]:
    found = set()
    for entry in client.list_artifacts(run_id):
        below = client.list_artifacts(run_id, entry.path) if entry.is_dir else [entry]
        found |= {item.path for item in below}
    return found


def test_study_is_run_once_recorded_and_rendered_with_the_same_bytes(
    mhiflab, mhiflab_process, write_study, tmp_path
):
    cases = {
        "without": {"label": "without", "set": {"model.fourier_branch": False}},
        "full": {"label": "full", "set": {"resources.workers": 2}},
    }
    study = write_study(cases=cases)
    first = mhiflab_process("run", study)
    assert first.returncode == 0, first.stdout + first.stderr
    assert "2 of 2 trials to execute" in first.stdout
    assert first.stderr == ""
    rendered = tmp_path / "lab" / "rendered" / "tiny"
    names = ["curves.csv", "curves.png", "fused.csv", "fused.png", "table-statistics.csv"]
    names += ["table.csv", "table.html", "table.json", "table.md", "table.tex"]
    assert sorted(p.name for p in rendered.iterdir()) == names
    bytes_before = {p.name: p.read_bytes() for p in rendered.iterdir()}
    assert list((tmp_path / "lab" / "ray").iterdir()) == []

    shutil.rmtree(rendered)
    left = tmp_path / "lab" / "ray" / "of-a-driver-that-was-killed"
    left.mkdir(parents=True)
    again = mhiflab("run", study)
    assert "0 of 2 trials to execute" in again.stdout
    assert not left.exists()
    assert {p.name: p.read_bytes() for p in rendered.iterdir()} == bytes_before

    client, recorded = runs(tmp_path / "lab")
    parents = [r for r in recorded if r.data.tags[tag.KIND] == "study"]
    children = [r for r in recorded if r.data.tags[tag.KIND] == "trial"]
    assert (len(parents), len(children)) == (1, 2)
    assert all(r.info.status == "FINISHED" for r in recorded)
    for child in children:
        assert child.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert artifacts(client, child.info.run_id) - {"uncommitted.diff"} == ARTIFACTS
        history = client.get_metric_history(child.info.run_id, "val_psnr")
        assert [point.step for point in history] == [1, 2]
        assert child.info.run_name == f"{child.data.tags['mhiflab.label']} seed 1"
        contexts = {i.tags[0].value: i.dataset for i in child.inputs.dataset_inputs}
        assert set(contexts) == {"training", "validation", "test"}
        fingerprint = child.data.tags["mhiflab.data_fingerprint"]
        assert fingerprint.startswith(contexts["test"].digest)
        assert len(child.data.tags["mhiflab.protocol_hash"]) == 64
        assert "system/cpu_utilization_percentage" in child.data.metrics
    notes = {r.data.tags.get("mhiflab.case"): r.data.tags[tag.NOTE] for r in recorded}
    assert "mhiflab table" in notes[None]
    assert "| model.fourier_branch | True | False |" in notes["without"]
    assert "base as it is" in notes["full"]
    assert len({r.data.tags["mhiflab.spec_hash"] for r in children}) == 2
    by_case = {r.data.tags["mhiflab.case"]: r.info.run_id for r in children}
    provenance = json.loads(
        Path(client.download_artifacts(by_case["full"], "provenance.json")).read_text()
    )
    assert provenance["workers"] == 2
    weights = client.download_artifacts(by_case["full"], "model/best.safetensors")
    with safe_open(weights, "pt") as file:
        config = json.loads(file.metadata()["config"])
    config["mlp_widths"] = tuple(config["mlp_widths"])
    FeINFN(ModelConfig(**config)).load_state_dict(load_file(weights))
    images = pd.read_csv(client.download_artifacts(by_case["full"], "metrics_test.csv"))
    assert len(images) == 4 * len(CONVENTIONS)
    assert set(images["convention"]) == set(CONVENTIONS)
    bands = pd.read_csv(client.download_artifacts(by_case["full"], "metrics_bands.csv"))
    per_image = bands.groupby(["scene", "method"])["psnr"].mean()
    usual = images[images["convention"] == "matlab"].set_index(["scene", "method"])["psnr"]
    pd.testing.assert_series_equal(per_image.sort_index(), usual.sort_index())
    assert set(images["method"]) == {"fused", "upsampled"}

    # A study that grows runs only what is new.
    grown = write_study(cases=cases, seeds=[1, 2])
    assert "2 of 4 trials to execute" in mhiflab("plan", grown).stdout


def test_run_continues_under_another_name_of_the_same_protocol(write_study, tmp_path):
    lab = Lab(tmp_path / "lab")
    uri = tracking_uri(lab)
    keys = set()
    for protocol in ("cave_x4", {"preset": "cave_x4", "name": "mine", "about": "reworded"}):
        base = {**TINY["base"], "protocol": protocol}
        (entry,) = read_plan(write_study(cases={}, base=base)).entries
        store = open_store(lab, uri)
        with trial_record(lab, uri, entry.key, "trial", study_run(store, "tiny", ""), {}) as record:
            record.settings(flatten(asdict(entry.trial.spec)), {})
            record.finish()
        keys.add(entry.key)
    (run,) = trial_runs(store).values()
    assert keys == {run.data.tags[tag.KEY]}
    # MLflow refuses a parameter that changes.
    assert tag.REFUSED not in run.data.tags


def test_failing_trial_is_recorded_and_does_not_end_the_study(mhiflab, write_study, tmp_path):
    cases = {
        "diverging": {"label": "diverging", "set": {"train.lr": 1e30}},
        "good": {"label": "good", "set": {}},
    }
    # One diverges inside a Ray Train worker, so that its error crosses every boundary.
    cases["diverging"]["set"]["resources.workers"] = 1
    done = mhiflab("run", write_study(cases=cases, base={**TINY["base"], "data": ONE_OF_EACH}))
    assert done.returncode == 1
    assert "1 of 2 trials failed" in done.stderr
    assert "training diverged: the loss was" in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    client, recorded = runs(tmp_path / "lab")
    status = {
        r.data.tags["mhiflab.case"]: r.info.status
        for r in recorded
        if r.data.tags[tag.KIND] == "trial"
    }
    assert status == {"diverging": "FAILED", "good": "FINISHED"}
    failed = next(r for r in recorded if r.info.status == "FAILED" and tag.KEY in r.data.tags)
    text = Path(client.download_artifacts(failed.info.run_id, "error.txt")).read_text()
    assert "train_epoch" in text
    refused = mhiflab("table", tmp_path / "tiny.yaml")
    assert refused.returncode == 1
    assert "1 of 2 runs are missing (diverging, seed 1)" in refused.stderr


def test_ctrl_c_ends_everything_and_the_study_continues(mhiflab, write_study, tmp_path):
    base = {**TINY["base"], "data": ONE_OF_EACH, "resources": {"workers": 2}}
    base["train"] = {**base["train"], "epochs": 25}
    study = write_study(base=base, cases={})
    words = [sys.executable, "-m", "mhiflab", "run", str(study)]
    log = (tmp_path / "log").open("w")
    # A session of its own is what a terminal makes; Ctrl-C reaches every process in it.
    driver = subprocess.Popen(words, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    state = next_state(tmp_path / "lab" / "checkpoints", driver)
    os.killpg(driver.pid, signal.SIGINT)
    assert driver.wait(timeout=200) == 1
    text = (tmp_path / "log").read_text()
    assert "stopped; finished trials are on record" in text
    assert "Traceback" not in text
    assert state.is_file()
    assert "resume" in mhiflab("plan", study).stdout
    assert mhiflab("run", study).returncode == 0
    client, recorded = runs(tmp_path / "lab")
    (child,) = (r for r in recorded if r.data.tags[tag.KIND] == "trial")
    history = client.get_metric_history(child.info.run_id, "loss")
    assert [point.step for point in history] == list(range(1, 26))


def next_state(folder: Path, driver: subprocess.Popen) -> Path:
    """Return the first training state that appears, while the driver runs."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and driver.poll() is None:
        if found := list(folder.glob("*/state.pt")):
            return found[0]
        time.sleep(0.2)
    raise AssertionError("no training state appeared")


def test_test_scenes_are_not_opened_before_training_has_ended(write_study, tmp_path):
    scenes = tmp_path / "scenes"
    scenes.mkdir()
    sample = SAMPLE
    for name in embedded_scenes("sample"):
        shutil.copy(sample / f"{name}.h5", scenes)
    parts: dict = {}
    for name, entry in embedded_scenes("sample").items():
        parts.setdefault(entry["part"], []).append(name)
    base = {"data": {"source": str(scenes), **parts}}
    study = write_study(cases={}, base={**TINY["base"], **base})
    (entry,) = read_plan(study).entries
    lab = Lab(tmp_path / "lab")
    uri = tracking_uri(lab)
    store = open_store(lab, uri)
    job = job_of(entry, lab, uri, study_run(store, "tiny", ""))
    # While training, the test scenes do not exist at all; they come back with the last epoch.
    away = tmp_path / "away"
    away.mkdir()
    for name in parts["test"]:
        (scenes / f"{name}.h5").rename(away / f"{name}.h5")

    def report(metrics: dict) -> None:
        if metrics.get("epoch") == entry.trial.spec.train.epochs:
            for name in parts["test"]:
                (away / f"{name}.h5").rename(scenes / f"{name}.h5")

    run_worker(job, torch.device("cpu"), report)
    _, recorded = runs(tmp_path / "lab")
    assert "FINISHED" in [r.info.status for r in recorded if r.data.tags[tag.KIND] == "trial"]
    # Had a file been exchanged meanwhile, its pixels would have told.
    first, other = (scenes / f"{name}.h5" for name in parts["test"])
    shutil.copy(first, other)
    with pytest.raises(UserError, match=f"{other.name}: the pixels of {other.stem} changed"):
        job.scenes(tuple(parts["test"]))


@pytest.mark.parametrize(
    "words", [[], ["run"], ["plan"], ["describe"], ["table"], ["ui"], ["demo"]]
)
def test_help_of_every_command(mhiflab, words):
    shown = mhiflab(*words, "--help")
    assert shown.returncode == 0
    assert "Usage" in shown.stdout


def test_describe_shows_every_network_of_a_study(mhiflab, write_study):
    shown = mhiflab("describe", write_study())
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.count("spatial_encoder") == 2
    assert shown.stdout.count("fourier_fusion") == 1
