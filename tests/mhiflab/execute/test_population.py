"""Population based training: decisions follow from the record, and every run is repeatable."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_study import runs
from tiny import ONE_OF_EACH, TINY, job_of

from feinfn.errors import UserError
from mhiflab.execute.search import Suggester
from mhiflab.execute.sweep import Outcome
from mhiflab.paths import Lab
from mhiflab.plan.plan import read_plan
from mhiflab.plan.suggest import comparison_epochs, successors
from mhiflab.record import tag
from mhiflab.record.store import open_store, tracking_uri
from mhiflab.record.studies import study_run
from mhiflab.study.search import Range, Scheduler, Search

SEARCH = {
    "space": {
        "train.lr": {"log_uniform": [1e-4, 1e-1]},
        "train.ssim_weight": {"uniform": [0, 1]},
    },
    "objectives": {"val_psnr": "max"},
    "algorithm": "random",
    "trials": 4,
    "scheduler": {"name": "pbt", "interval_epochs": 2},
}
EPOCHS = 6


def search(trials: int = 8, replaced: float = 0.25, **changes) -> Search:
    given = {
        "space": {"train.lr": Range(log_uniform=(1e-4, 1e-1))},
        "objectives": {"val_psnr": "max"},
        "algorithm": "random",
        "scheduler": Scheduler(name="pbt", interval_epochs=2, replaced=replaced),
    }
    return Search(**{**given, "trials": trials, **changes})


@given(
    scores=st.lists(st.floats(0, 50) | st.just(-math.inf), min_size=2, max_size=9),
    replaced=st.floats(0.1, 0.5),
    epoch=st.integers(1, 9),
)
def test_only_the_worst_are_replaced_and_only_by_the_best(scores, replaced, epoch):
    one = search(len(scores), replaced)
    values = [{"train.lr": 1e-3 * (i + 1)} for i in range(len(scores))]
    moves = successors(one, epoch, values, scores)
    assert moves == successors(one, epoch, values, scores)
    count = max(1, int(replaced * len(scores)))
    assert sum(move is not None for move in moves) <= count
    ranked = sorted(scores, reverse=True)
    for score, move in zip(scores, moves, strict=True):
        if move is not None:
            donor, new = move
            assert score <= ranked[-count]
            assert scores[donor] >= ranked[count - 1]
            assert scores[donor] > -math.inf
            assert new["train.lr"] != values[donor]["train.lr"]
            assert 1e-4 <= new["train.lr"] <= 1e-1


def test_population_is_compared_inside_the_training_only():
    assert list(comparison_epochs(search(), 6)) == [2, 4]
    assert list(comparison_epochs(search(), 7)) == [2, 4, 6]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "tpe"}, "search.algorithm: found 'tpe', expected random with pbt"),
        ({"objectives": {"val_psnr": "max", "parameters": "min"}}, "none with two objectives"),
        ({"space": {"train.epochs": Range(integer=(2, 9))}}, "expected a uniform or log_uniform"),
        ({"space": {"model.omega_0": Range(uniform=(2, 9))}}, "may change during training"),
        ({"replaced": 0.7}, "search.scheduler.replaced: found 0.7"),
    ],
)
def test_what_a_population_cannot_do_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        search(**changes)


def test_a_member_more_is_another_population():
    assert search(8).identity("base") != search(9).identity("base")


def population(write_study, workers: int = 0, epochs: int = EPOCHS, trials: int = 4) -> Path:
    base = {**TINY["base"], "train": {**TINY["base"]["train"], "epochs": epochs}}
    base |= {"resources": {"workers": workers}, "data": ONE_OF_EACH}
    return write_study(cases={}, search={**SEARCH, "trials": trials}, base=base)


def test_population_waits_for_its_round_and_ends_if_all_members_are_lost(write_study, tmp_path):
    lab = Lab(tmp_path / "lab")
    store = open_store(lab, tracking_uri(lab))
    plan = read_plan(population(write_study))
    monitor = SimpleNamespace(lanes={}, outcome=Outcome([], {}, {}))
    sweep = SimpleNamespace(plan=plan, store=store, jobs={}, monitor=monitor)
    template = job_of(plan.entries[0], lab, store.uri, study_run(store, "tiny", ""), test=False)
    suggester = Suggester(plan.searches[0], template, sweep)
    configs = [suggester.suggest(f"{i}") for i in range(4)]
    assert [config["until"] for config in configs] == [2] * 4
    assert {config["key"] for config in configs} == set(sweep.jobs)
    assert suggester.suggest("4") is None
    for i in range(4):
        suggester.on_trial_complete(f"{i}", error=True)
    assert suggester.suggest("4") == suggester.FINISHED


def table(lab: Path) -> pd.DataFrame:
    return pd.read_csv(lab / "rendered" / "tiny" / "search.csv").set_index("run_key")


@pytest.mark.timeout(600)
def test_a_members_weights_are_those_of_its_spec_trained_from_the_start(
    mhiflab, without_ray, write_study, tmp_path
):
    done = mhiflab("run", population(write_study))
    assert done.returncode == 0, done.stderr
    assert "population based training for val_psnr max: 4 of 4" in done.stdout
    found = table(tmp_path / "lab")
    assert set(found["state"]) == {"done", "stopped"}
    assert (found["state"] == "done").sum() == 4
    client, recorded = runs(tmp_path / "lab")
    by_key = {run.data.tags.get(tag.KEY): run for run in recorded}
    for key, row in found.iterrows():
        history = client.get_metric_history(by_key[key].info.run_id, "loss")
        # The base itself is trained to the end for the table, even if it was replaced.
        last = EPOCHS if "#0" in by_key[key].info.run_name else row["epochs"]
        assert [point.step for point in history] == list(range(1, last + 1))
    # The youngest lineage: it changed last.
    key = found[found["state"] == "done"]["since"].idxmax()
    assert found["since"][key] > 0
    run = by_key[key]
    spec = json.loads(Path(client.download_artifacts(run.info.run_id, "spec.json")).read_text())
    assert [change["after_epoch"] for change in spec["train"]["changes"]]
    study = write_study(
        "again", cases={}, base={**TINY["base"], "data": ONE_OF_EACH, "train": spec["train"]}
    )
    done = mhiflab("run", study, "--lab", "other")
    assert done.returncode == 0, done.stderr
    weights = [
        load_file(tmp_path / lab / "checkpoints" / key / "best.safetensors")
        for lab in ("lab", "other")
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("workers", "epochs", "trials"), [(0, EPOCHS, 4), (1, 4, 2)])
def test_killed_population_goes_on_to_the_same_end(
    mhiflab, write_study, tmp_path, workers, epochs, trials
):
    study = population(write_study, workers, epochs, trials)
    done = mhiflab("run", study, "--lab", "whole")
    assert done.returncode == 0, done.stderr
    for states in (1, trials + 1):
        words = [sys.executable, "-m", "mhiflab", "run", str(study), "--lab", "cut"]
        with (tmp_path / "log").open("a") as log:
            driver = subprocess.Popen(
                words, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 200
        folder = tmp_path / "cut" / "checkpoints"
        while len(list(folder.glob("*/state.pt"))) < states and time.monotonic() < deadline:
            time.sleep(0.1)
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
        time.sleep(5)
    done = mhiflab("run", study, "--lab", "cut")
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(table(tmp_path / "whole"), table(tmp_path / "cut"))
