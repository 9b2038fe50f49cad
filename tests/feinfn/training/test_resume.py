"""A training that is cut anywhere continues as if nothing had happened."""

import json
import os
import random
import signal
import time
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import (
    CONFIG,
    PROCESSES,
    STEPS,
    after,
    in_pieces,
    same,
    spawn,
    start,
    state,
)

from feinfn.errors import Preempted
from feinfn.training.schedule import batches
from feinfn.training.trainer import Trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    told: list = []
    model = start(folder, told.append)
    return folder, told, model.state_dict()


def test_the_training_has_as_many_steps_as_these_tests_think(whole):
    assert state(whole[0])["progress"] == [CONFIG.epochs, CONFIG.epochs * STEPS]


@settings(max_examples=8, deadline=None)
@given(first=st.integers(1, CONFIG.epochs * STEPS - 1), data=st.data())
def test_cut_anywhere_and_again_it_ends_bit_for_bit_alike(whole, tmp_path_factory, first, data):
    cuts = [first]
    if first < CONFIG.epochs * STEPS - 1:
        cuts.append(data.draw(st.integers(1, CONFIG.epochs * STEPS - 1 - first)))
    folder = tmp_path_factory.mktemp("cut")
    told = in_pieces(folder, cuts, checkpoint_every=3)
    assert told == whole[1]
    assert same(state(folder), state(whole[0]))


def test_state_inside_an_epoch_is_that_of_its_step(tmp_path):
    with pytest.raises(Preempted, match=r"after step 6 \(epoch 2\)"):
        start(tmp_path, lambda told: None, preempted=after(6))
    found = state(tmp_path)
    assert found["progress"] == [1, 6]
    assert len(found["losses"]) == 2


def test_a_failure_saves_the_last_full_step_and_never_half_of_one(tmp_path, monkeypatch):
    update = torch.optim.AdamW.step

    def breaking(failing, when):
        steps = after(when)

        def step(*args, **kwargs):
            if steps():
                failing(*args, **kwargs)
                raise RuntimeError("broken")
            return update(*args, **kwargs)

        return step

    # In the middle of a step some weights may have changed: the epoch's start stays.
    monkeypatch.setattr(torch.optim.AdamW, "step", breaking(update, 7))
    with pytest.raises(RuntimeError, match="broken"):
        start(tmp_path / "half", lambda told: None)
    assert state(tmp_path / "half")["progress"] == [1, 4]
    monkeypatch.setattr(torch.optim.AdamW, "step", update)

    def no_gradient(*args):
        raise RuntimeError("connection closed by peer")

    gradient = Trainer._gradient
    steps = after(7)
    monkeypatch.setattr(Trainer, "_gradient", lambda *a: (no_gradient if steps() else gradient)(*a))
    with pytest.raises(RuntimeError, match="closed by peer"):
        start(tmp_path / "full", lambda told: None)
    assert state(tmp_path / "full")["progress"] == [1, 6]


def _two(rank: int, folder: Path, cuts: list[int]) -> None:
    """Train whole, and preempted as rank 1 alone is told to."""
    told: list = []
    start(folder / "whole", told.append)
    pieces: list = []
    for steps in cuts:
        with pytest.raises(Preempted):
            start(folder / "cut", pieces.append, preempted=after(steps if rank == 1 else 10**5))
    start(folder / "cut", pieces.append)
    if rank == 0:
        (folder / "told.json").write_text(json.dumps([told, pieces]))


def test_two_workers_are_preempted_together_and_continue_bit_for_bit(tmp_path):
    assert spawn(2, _two, tmp_path, [3, 6]) == [0, 0]
    told, pieces = json.loads((tmp_path / "told.json").read_text())
    assert told == pieces
    assert same(state(tmp_path / "whole"), state(tmp_path / "cut"))


def _killed(rank: int, folder: Path) -> None:
    """Train until rank 1 is lost in step 7; rank 0 must be told by an error, not by a wait."""
    batch, steps = Trainer._gradient, after(7)

    def dying(*args):
        if rank == 1 and steps():
            os.kill(os.getpid(), signal.SIGKILL)
        return batch(*args)

    Trainer._gradient = dying  # type: ignore[method-assign]
    try:
        start(folder, lambda told: None)
    except RuntimeError:
        (folder / "raised").touch()
        os._exit(3)


def _continued(rank: int, folder: Path) -> None:
    start(folder / "whole", lambda told: None)
    start(folder / "cut", lambda told: None)


def test_the_loss_of_a_worker_loses_no_step(tmp_path):
    # Had rank 0 waited for the end of its group's patience, `spawn` had killed it, too.
    assert spawn(2, _killed, tmp_path / "cut") == [3, -signal.SIGKILL]
    assert state(tmp_path / "cut")["progress"] == [1, 6]
    assert spawn(2, _continued, tmp_path) == [0, 0]
    assert same(state(tmp_path / "whole"), state(tmp_path / "cut"))


def _logged(folder: Path, config) -> None:
    with (folder / "log").open("a") as log:

        def tell(told) -> None:
            log.write(json.dumps(told) + "\n")
            log.flush()

        start(folder, tell, config)


def wait(process: BaseProcess, seconds: float, log: Path, epochs: int) -> None:
    """Wait so long, or until a log has so many lines more: a machine's speed may change."""
    end, most = time.monotonic() + seconds, count_lines(log) + epochs
    while process.is_alive() and time.monotonic() < end and count_lines(log) < most:
        process.join(0.02)


def count_lines(log: Path) -> int:
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def test_killed_at_any_moment_it_ends_bit_for_bit_alike(tmp_path):
    # Validation of one epoch in ten, so that saving takes its share of the time.
    config = replace(CONFIG, epochs=24, validate_every=10)
    told: list = []
    began = time.monotonic()
    start(tmp_path / "whole", told.append, config)
    lasts = time.monotonic() - began
    chance = random.Random(1)
    (tmp_path / "cut").mkdir()
    log = tmp_path / "cut" / "log"
    kills = 0
    for _ in range(60):
        process = PROCESSES.Process(target=_logged, args=(tmp_path / "cut", config))
        process.start()
        if kills < 8:
            wait(process, chance.uniform(0.2, 0.2 + lasts / 6), log, config.epochs // 8)
        else:
            process.join(60)
        if process.exitcode is None:
            kills += 1
        process.kill()
        process.join()
        if process.exitcode == 0:
            break
    assert process.exitcode == 0
    assert kills >= 5
    lines = log.read_text().splitlines()
    seen = dict(map(json.loads, lines))
    assert seen == dict(told)
    assert same(state(tmp_path / "whole"), state(tmp_path / "cut"))
    assert not list((tmp_path / "cut").glob("*.damaged"))


def test_workers_share_each_batch_of_one_order(monkeypatch):
    windows = range(20)
    alone = list(batches(windows, 6, 1, 2))
    for workers in (2, 3):
        shares = []
        for rank in range(workers):
            monkeypatch.setattr("feinfn.training.schedule.world", lambda r=rank, w=workers: (r, w))
            shares.append(list(batches(windows, 6, 1, 2)))
            assert list(batches(windows, 6, 1, 2, done=1)) == shares[-1][1:]
        monkeypatch.undo()
        together = [[w for part in parts for w in part] for parts in zip(*shares, strict=True)]
        assert list(map(sorted, together)) == list(map(sorted, alone))


def _until(rank: int, folder: Path, steps: int) -> None:
    with pytest.raises(Preempted):
        start(folder, lambda told: None, preempted=after(steps))


def test_resuming_with_other_worker_counts_stays_close(whole, tmp_path):
    with pytest.raises(Preempted):
        start(tmp_path, lambda told: None, preempted=after(3))
    for workers in (2, 3):
        assert spawn(workers, _until, tmp_path, 4) == [0] * workers
    model = start(tmp_path, lambda told: None)
    assert state(tmp_path)["progress"] == state(whole[0])["progress"]
    # Sums over workers round otherwise in the last bit of float32 gradients; Adam scales small
    # gradients up to steps of the learning rate, so that a step may differ by part of that.
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, whole[2][name], rtol=0, atol=0.02 * CONFIG.lr)
