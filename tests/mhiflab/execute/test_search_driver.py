"""Searches from the command line, on a real Ray and a real MLflow store."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from mlflow import MlflowClient
from tiny import ONE_OF_EACH, TINY

from mhiflab.record import tag

PSNR = {"val_psnr": "max"}


def base(**changes) -> dict:
    """Return TINY's base with changes of its training; both CPUs, so that trials come in turn."""
    return {**TINY["base"], "train": {**TINY["base"]["train"], **changes}}


def trial_runs(lab: Path) -> list:
    client = MlflowClient(tracking_uri=f"sqlite:///{lab / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mhiflab")
    if experiment is None:
        return []
    found = client.search_runs([experiment.experiment_id])
    return [run for run in found if run.data.tags[tag.KIND] == "trial"]


def suggestions(runs: list) -> list[int]:
    """Return the indices of all suggestions on record."""
    tags = [name for run in runs for name in run.data.tags if name.startswith(tag.SEARCH)]
    return sorted(int(name.rsplit(".", 1)[-1]) for name in tags)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_tpe_search_goes_on_without_repeating_anything(mhiflab, write_study, tmp_path):
    wanted = {
        "space": {"train.lr": {"log_uniform": [1e-4, 1e-1]}, "model.feat_dim": {"integer": [2, 6]}},
        "objectives": PSNR,
        "algorithm": "tpe",
        "trials": 6,
    }
    study = write_study(search=wanted, cases={}, base=base(epochs=6))
    lab = tmp_path / "lab"
    words = [sys.executable, "-m", "mhiflab", "run", str(study)]
    with (tmp_path / "log").open("w") as log:
        driver = subprocess.Popen(
            words, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
        )
    deadline = time.monotonic() + 120
    before: list = []
    try:
        while len(before) < 2 and time.monotonic() < deadline and driver.poll() is None:
            time.sleep(0.3)
            # Only the driver may set up the database; who trains has one.
            if list((lab / "checkpoints").glob("*/state.pt")):
                before = [r for r in trial_runs(lab) if r.info.status == "FINISHED"]
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    assert len(before) >= 2, (tmp_path / "log").read_text()
    # Ray's processes follow their driver; what they finished meanwhile counts.
    time.sleep(5)
    started = len(trial_runs(lab))
    before = [r for r in trial_runs(lab) if r.info.status == "FINISHED"]
    assert f"{len(before)} of 6 suggestions recorded" in mhiflab("plan", study).stdout

    again = mhiflab("run", study)
    assert again.returncode == 0, again.stdout + again.stderr
    runs = trial_runs(lab)
    assert started >= len(before)
    assert suggestions(runs) == list(range(6))
    assert len(runs) == 6
    ended = {run.info.run_id: run.info.end_time for run in runs}
    tested = {run.info.run_id for run in runs if run.data.tags[tag.TESTED] == "true"}
    # The default and the best were opened once more to be tested, nothing else was.
    assert len(tested) <= 2
    assert all(ended[r.info.run_id] == r.info.end_time or r.info.run_id in tested for r in before)
    table = pd.read_csv(lab / "rendered" / "tiny" / "search.csv")
    assert list(table["index"]) == list(range(6))
    assert set(table["epochs"]) == {6}
    assert (lab / "rendered" / "tiny" / "search.png").stat().st_size > 10_000
    rows = pd.read_csv(lab / "rendered" / "tiny" / "table.csv")["method"]
    assert [row.split(" (")[0] for row in rows[1:]] == ["Default", "Best of 6"]

    # A larger search keeps what it has.
    grown = write_study(search={**wanted, "trials": 7}, cases={}, base=base(epochs=6))
    assert "6 of 7 suggestions recorded" in mhiflab("plan", grown).stdout
    done = mhiflab("run", study)
    assert "7 of 7 suggestions recorded" in done.stdout
    assert "0 of 2 trials to execute" in done.stdout


@pytest.mark.parametrize(
    ("scheduler", "workers", "rates", "trials", "seed"),
    [
        # At all rates but the first nothing is learned: whoever comes late falls behind.
        ("asha", 0, [2e-2, 1e-9, 2e-9, 3e-9], 7, 1),
        # A median needs others to learn: all but the last suggestion do.
        pytest.param("median", 0, [2e-2, 1e-2, 5e-3, 1e-9], 8, 0, marks=pytest.mark.slow),
        pytest.param("asha", 1, [2e-2, 1e-9, 2e-9, 3e-9], 7, 1, marks=pytest.mark.slow),
    ],
    ids=["asha", "median", "asha of workers"],
)
def test_scheduler_stops_what_falls_behind_and_another_study_goes_on_with_it(
    scheduler, workers, rates, trials, seed, mhiflab, write_study, tmp_path, request
):
    wanted = {
        "space": {"train.lr": {"choice": rates}},
        "objectives": PSNR,
        "algorithm": "random",
        "trials": trials,
        "seed": seed,
        "scheduler": {"name": scheduler, "grace_epochs": 1, "reduction": 2},
    }
    own = {**base(epochs=4, lr=2e-2), "resources": {"workers": workers}}
    study = write_study(search=wanted, cases={}, base=own)
    ran = mhiflab("run", study)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    lab = tmp_path / "lab"
    runs = trial_runs(lab)
    assert suggestions(runs) == list(range(trials))
    stopped = [run for run in runs if run.info.status == "KILLED"]
    assert stopped
    assert all(1 <= int(run.data.tags[tag.STOPPED]) < 4 for run in stopped)
    table = pd.read_csv(lab / "rendered" / "tiny" / "search.csv").set_index("index")
    assert (table["state"] == "stopped").sum() >= len(stopped)
    assert table.loc[0, "val_psnr"] == table["val_psnr"].max()
    assert table[table["state"] == "stopped"]["epochs"].max() < 4

    rate = float(stopped[0].data.params["train.lr"])
    other = write_study("other", cases={}, base={**own, "train": {**own["train"], "lr": rate}})
    assert "1 of 1 trials" in mhiflab("plan", other).stdout
    if not workers:
        request.getfixturevalue("without_ray")
    assert mhiflab("run", other).returncode == 0
    (run,) = [r for r in trial_runs(lab) if r.info.run_id == stopped[0].info.run_id]
    assert run.info.status == "FINISHED"
    assert tag.STOPPED not in run.data.tags
    assert run.data.tags[tag.TESTED] == "true"


def test_front_of_two_objectives_is_tested_and_drawn(mhiflab, without_ray, write_study, tmp_path):
    wanted = {
        "space": {"model.feat_dim": {"integer": [2, 3]}, "train.lr": {"choice": [1e-2, 1e30]}},
        "objectives": {"val_psnr": "max", "parameters": "min"},
        "algorithm": "nsga2",
        "trials": 7,
        "seed": 3,
    }
    ran = mhiflab("run", write_study(search=wanted, cases={}, base=base(epochs=1)))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    table = pd.read_csv(tmp_path / "lab" / "rendered" / "tiny" / "search.csv")
    # Few points: most suggestions meet a run that is on record.
    assert len(table) == 7
    assert table["run_key"].nunique() == len(trial_runs(tmp_path / "lab")) <= 5
    # A rate at which training diverges is a result.
    diverged = table["train.lr"] > 1
    assert diverged.any()
    assert set(table["state"][diverged]) == {"failed"}
    assert table["val_psnr"][diverged].isna().all()
    done = table[~diverged]
    assert done["parameters"].nunique() == done["model.feat_dim"].nunique()
    rows = list(pd.read_csv(tmp_path / "lab" / "rendered" / "tiny" / "table.csv")["method"])
    assert rows[1].startswith("Default")
    assert rows[2].startswith("Front 1")


def test_every_learned_model_can_be_searched(mhiflab, without_ray, write_study):
    model = {"name": "residual", "width": 4, "blocks": 1}
    own = {**base(epochs=1), "model": model, "data": ONE_OF_EACH, "resources": {"workers": 0}}
    wanted = {
        "space": {"model.width": {"choice": [4, 5]}},
        "objectives": PSNR,
        "algorithm": "random",
        "trials": 2,
        "seed": 1,
    }
    study = write_study(search=wanted, cases={}, base=own)
    ran = mhiflab("run", study)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "2 of 2 suggestions recorded" in mhiflab("plan", study).stdout
