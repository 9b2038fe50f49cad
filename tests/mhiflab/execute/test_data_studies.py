"""Studies on prepared data, prepared files and real pairs; runs evaluated off their protocol."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import torch
from mlflow import MlflowClient
from tiny import ONE_OF_EACH, TINY

from feinfn.config import DataConfig
from feinfn.data import source
from feinfn.data.pairs import simulated_inputs
from feinfn.data.source import embedded_scenes, load_scene
from feinfn.inference.apply import load_trained
from feinfn.metrics.evaluation import evaluate

CPU = torch.device("cpu")
SAMPLE = Path(source.__file__).parent / "sample"
pytestmark = pytest.mark.usefixtures("without_ray")


def base(**changes: object) -> dict:
    train = {**TINY["base"]["train"], "epochs": 1}
    return {**TINY["base"], "train": train, **changes}


def sample_parts() -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for name, entry in embedded_scenes("sample").items():
        parts.setdefault(entry["part"], []).append(name)
    return parts


def trial_run(lab: Path) -> tuple[MlflowClient, str]:
    client = MlflowClient(tracking_uri=f"sqlite:///{lab / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mhiflab")
    (run,) = (
        r
        for r in client.search_runs([experiment.experiment_id])
        if r.data.tags["mhiflab.kind"] == "trial"
    )
    return client, run.info.run_id


def artifact(lab: Path, name: str) -> Path:
    client, run_id = trial_run(lab)
    return Path(client.download_artifacts(run_id, name))


def test_sample_prepared_as_a_store_is_the_same_data_as_the_sample(mhiflab, write_study, tmp_path):
    parts = sample_parts()
    done = mhiflab("data", "prepare", "files", "--source", SAMPLE, "--out", tmp_path / "s.h5")
    assert done.returncode == 0, done.stderr

    def run_keys(**study: object) -> set[str]:
        shown = mhiflab("plan", write_study(**study), "--keys")
        assert shown.returncode == 0, shown.stderr
        return set(re.findall(r"^[0-9a-f]{12}\b", shown.stdout, re.MULTILINE))

    keys: set[str] = set()
    for data in ({"source": "sample"}, {"source": str(tmp_path / "s.h5"), **parts}):
        keys |= run_keys(base=base(data=data), cases={})
    # A store made with a split fills the parts by itself.
    (tmp_path / "split.json").write_text(json.dumps(parts))
    words = ["--source", SAMPLE, "--out", tmp_path / "split.h5", "--split", "split.json"]
    assert mhiflab("data", "prepare", "files", *words).returncode == 0
    data = {"source": str(tmp_path / "split.h5")}
    keys |= run_keys(base=base(data=data), cases={})
    assert len(keys) == 1
    missing = {"source": str(tmp_path / "s.h5"), **parts, "train": ["clot_ms"]}
    wrong = mhiflab("plan", write_study(base=base(data=missing), cases={}))
    assert "data.train: found 'clot_ms', did you mean 'cloth_ms'?" in wrong.stderr


def test_prepared_files_are_trained_on_as_they_are(mhiflab, write_study, tmp_path):
    words = ["--protocol", "cave_x4", "--patch", 32, "--stride", 48]
    (tmp_path / "split.json").write_text(json.dumps(sample_parts()))
    words_prepare = ["--source", SAMPLE, "--out", "s.h5", "--split", "split.json"]
    done = mhiflab("data", "prepare", "files", *words_prepare)
    assert done.returncode == 0, done.stderr
    for part in ("train", "validation", "test"):
        extra = words if part == "train" else [*words[:2], "--patch", 128, "--stride", 128]
        out = ["--out", f"{part}_x4.h5", "--part", part]
        done = mhiflab("data", "export", "--source", "s.h5", *extra, *out)
        assert done.returncode == 0, done.stderr
    data = {
        "source": str(tmp_path),
        "inputs": "stored",
        **{part: [f"{part}_x4"] for part in ("train", "validation", "test")},
    }
    ran = mhiflab("run", write_study(base=base(data=data), cases={}))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = pd.read_csv(artifact(tmp_path / "lab", "metrics_test.csv"))
    assert set(table["scene"]) == {"test_x4_00000", "test_x4_00001"}
    # Their references can be simulated anew as well: every image is a scene.
    words = ["prepare", "files", "--source", "test_x4.h5", "--out", "again.h5"]
    done = mhiflab("data", *words, "--wavelengths", "400:700:10")
    assert done.returncode == 0, done.stderr
    lines = mhiflab("data", "fingerprint", "s.h5", "again.h5").stdout.splitlines()
    hashes = {line.split()[1]: line.split()[0] for line in lines}
    test = [hashes[name] for name in sample_parts()["test"]]
    assert {hashes["test_x4_00000"], hashes["test_x4_00001"]} == set(test)
    wrong = write_study(base=base(data=data, protocol="cave_x8"), cases={})
    assert "found ratio 4" in mhiflab("run", wrong).stderr
    vain = {**base(data=data)["train"], "augment": True}
    shown = mhiflab("plan", write_study(base=base(data=data, train=vain), cases={}))
    assert "train.augment: found with data.inputs: stored" in shown.stderr
    assert "expected scenes" in mhiflab("robustness", write_study(base=base(data=data))).stderr


@pytest.fixture
def real_pair(tmp_path: Path) -> Path:
    """A folder with one pair of sensors whose MSI is four times finer, and no reference."""
    draw = np.random.default_rng(0)
    fine = draw.random((9, 192, 192))
    fine = np.cumsum(np.cumsum(fine - 0.5, axis=1), axis=2)
    fine = (fine - fine.min()) / np.ptp(fine)
    hsi = fine.reshape(9, 48, 4, 48, 4).mean(axis=(2, 4)).transpose(1, 2, 0)
    folder = tmp_path / "pairs"
    folder.mkdir()
    msi = fine[[1, 4, 7]].transpose(1, 2, 0)
    scipy.io.savemat(folder / "city.mat", {"HSim": hsi, "MSim": msi})
    return folder


def test_real_pair_without_reference_is_trained_fused_and_tabled(
    mhiflab, write_study, tmp_path, real_pair
):
    windows = ["city[0:16, 0:48]", "city[16:32, 0:48]", "city[32:48, 0:48]"]
    data = dict(zip(("train", "validation", "test"), ([w] for w in windows), strict=True))
    model = {**TINY["base"]["model"], "hsi_bands": 9, "msi_bands": 3}
    protocol = {"preset": "paris_x4", "msi_order": ["G", "R", "NIR"], "name": "city_x4"}
    changes = {
        "model": model,
        "protocol": protocol,
        "data": {"source": str(real_pair), **data},
        "train": {**TINY["base"]["train"], "epochs": 1, "patch_px": 16, "stride_px": 16},
    }
    ran = mhiflab("run", write_study(base=base(**changes), cases={}))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "QNR" in ran.stdout
    assert "convention without_reference" in ran.stdout
    table = pd.read_csv(artifact(tmp_path / "lab", "metrics_test.csv"))
    assert list(table["convention"]) == ["without_reference"] * 2
    assert table["qnr"].between(0, 1).all()
    assert (tmp_path / "lab" / "rendered" / "tiny" / "fused.png").is_file()


def test_what_would_stop_a_trial_late_is_refused_by_the_plan(mhiflab, write_study):
    parts = sample_parts()
    small = {**parts, "source": "sample", "test": [f"{parts['test'][0]}[0:8, 0:64]"]}
    shown = mhiflab("plan", write_study(base=base(data=small), cases={}))
    assert f"data.test: found {small['test'][0]}" in shown.stderr
    assert "expected at least 11x11" in shown.stderr


def test_conventions_side_by_side_and_robustness_of_a_finished_run(mhiflab, write_study, tmp_path):
    study = write_study(base=base(), cases={})
    unready = mhiflab("robustness", study)
    assert "1 of 1 runs are missing" in unready.stderr
    assert mhiflab("run", study).returncode == 0
    both = mhiflab("table", study, "--convention", "matlab", "--convention", "uint8")
    assert "convention matlab" in both.stdout
    assert "convention uint8" in both.stdout
    rendered = tmp_path / "lab" / "rendered" / "tiny"
    usual, rounded = (pd.read_csv(rendered / f"table{n}.csv") for n in ("", "-uint8"))
    assert (usual["psnr_mean"] != rounded["psnr_mean"]).all()
    wrong = mhiflab("table", study, "--convention", "matlb")
    assert "did you mean 'matlab'?" in wrong.stderr

    for words, message in (
        (["--snr", "-inf"], "--snr: found (-inf,), expected decibels, or inf"),
        (["--sigma", "0"], "--sigma: found (0.0,), expected a list of numbers > 0"),
        (["--case", "none"], "--case: found 'none', expected cases of "),
    ):
        assert message in mhiflab("robustness", study, *words).stderr

    first = mhiflab("robustness", study, "--sigma", "2", "--snr", "30")
    assert first.returncode == 0, first.stderr
    grid = artifact(tmp_path / "lab", "robustness.csv")
    table = pd.read_csv(grid)
    assert len(table) == 2 * 2 * 2
    own = table[(table["sigma_factor"] == 1) & np.isinf(table["snr_db"])]["psnr"]
    recorded = pd.read_csv(artifact(tmp_path / "lab", "metrics_test.csv"))
    fused = recorded[(recorded["method"] == "fused") & (recorded["convention"] == "matlab")]
    # The run's own protocol is one cell of the grid, with the numbers of its test.
    assert sorted(own) == pytest.approx(sorted(fused["psnr"]), abs=1e-4)
    noisy = table[table["snr_db"] == 30].groupby("sigma_factor")["psnr"].mean()
    assert (noisy < table[np.isinf(table["snr_db"])].groupby("sigma_factor")["psnr"].mean()).all()
    # Asked again with one more level, only the new cells are computed.
    grown = mhiflab(
        "robustness", study, "--sigma", "2", "--snr", "30", "--srf", "nikon_d700_nssr_norm"
    )
    assert grown.returncode == 0, grown.stderr
    after = pd.read_csv(artifact(tmp_path / "lab", "robustness.csv"))
    assert len(after) == 2 * len(table)
    pd.testing.assert_frame_equal(
        after[after["srf"] == table["srf"][0]].reset_index(drop=True), table
    )
    assert artifact(tmp_path / "lab", "robustness.png").stat().st_size > 10_000


def test_a_network_on_a_base_is_the_same_wherever_it_is_used(mhiflab, write_study, tmp_path):
    physics = {"base": "local", "consistency": "both", "residual_scale": 0.1, "zero_start": True}
    own = base(
        model={"name": "residual", "width": 4, "blocks": 1, **physics},
        data=ONE_OF_EACH,
        resources={"workers": 0},
    )
    own["train"] = {**own["train"], "loss": "relative", "augment": True}
    study = write_study(base=own, cases={})
    ran = mhiflab("run", study)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    recorded = pd.read_csv(artifact(tmp_path / "lab", "metrics_test.csv"))
    recorded = recorded[recorded["convention"] == "matlab"].set_index("method")["psnr"]
    assert recorded["fused"] > recorded["upsampled"] + 10

    assert mhiflab("robustness", study, "--sigma", "2").returncode == 0
    grid = pd.read_csv(artifact(tmp_path / "lab", "robustness.csv"))
    cells = grid[np.isinf(grid["snr_db"])].set_index("sigma_factor")["psnr"]
    assert cells[1.0] == pytest.approx(recorded["fused"], abs=1e-4)
    # The network takes the wider PSF for its own.
    assert cells[2.0] < recorded["fused"] - 1

    trained = load_trained(artifact(tmp_path / "lab", "model"))
    image = simulated_inputs(load_scene(DataConfig(), "pompoms_ms"), trained.protocol, CPU)
    fused = trained.fuse(image.inputs.lr_hsi_BShw, image.inputs.msi_BMHW)[0]
    assert evaluate(fused, image.reference, 4, "matlab")["psnr"] == pytest.approx(
        recorded["fused"], abs=1e-4
    )
