"""A machine that is taken away (SIGTERM) costs no step of training."""

import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from tiny import TINY

from feinfn.training.checkpoint import parse_state, read_state


def states(lab: Path) -> list[dict[str, Any]]:
    """Return the newest training states in a lab."""
    found = sorted((lab / "checkpoints").glob("*/state.pt"))
    return [parse_state(read_state(path), torch.device("cpu"), path) for path in found]


def training_process(driver: subprocess.Popen, title: str) -> psutil.Process:
    """Return a process of the driver's Ray whose title has a word."""
    below = psutil.Process(driver.pid).children(recursive=True)
    titles: dict[psutil.Process, str] = {}
    for process in below:
        # Some end just now.
        with suppress(psutil.NoSuchProcess):
            titles[process] = " ".join(process.cmdline())
    return next(p for p, text in titles.items() if text.startswith("ray::") and title in text)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("workers", "title"),
    [(0, "ImplicitFunc"), pytest.param(2, "RayTrainWorker", marks=pytest.mark.slow)],
)
def test_terminated_trial_saves_inside_the_epoch_and_continues_bit_for_bit(
    mhiflab, write_study, tmp_path, workers, title, request
):
    train = {**TINY["base"]["train"], "epochs": 3, "stride_px": 12, "validate_every": 3}
    base = {**TINY["base"], "train": train, "resources": {"workers": workers}}
    # Without this it would go on by itself, in another process.
    study = write_study(base=base, cases={}, retry={"lost": 0})
    words = [sys.executable, "-m", "mhiflab", "run", str(study)]
    log = tmp_path / "log"
    with log.open("w") as out:
        driver = subprocess.Popen(words, cwd=tmp_path, stdout=out, stderr=out)
    deadline = time.monotonic() + 200
    while not states(tmp_path / "lab") and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    # Into the second epoch.
    time.sleep(0.5)
    training_process(driver, title).send_signal(signal.SIGTERM)
    assert driver.wait(timeout=200) == 1
    text = log.read_text()
    assert "1 of 1 trials did not end" in text
    assert "Traceback" not in text
    (cut,) = states(tmp_path / "lab")
    assert 0 < len(cut["losses"]) < cut["progress"][1]
    assert "resume" in mhiflab("plan", study).stdout
    if not workers:
        # What trains in its own process is the same in this one.
        request.getfixturevalue("without_ray")
    assert mhiflab("run", study).returncode == 0
    assert mhiflab("run", study, "--lab", "whole").returncode == 0
    (resumed,), (whole,) = (states(tmp_path / name) for name in ("lab", "whole"))
    assert resumed["progress"][:2] == whole["progress"][:2]
    for name in ("model", "best_weights"):
        assert all(torch.equal(w, whole[name][k]) for k, w in resumed[name].items())
