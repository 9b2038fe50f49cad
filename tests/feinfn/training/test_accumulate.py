"""A batch in parts is the same step, and a step that does not fit leaves nothing behind."""

import gc
import pickle
import traceback
import weakref
from dataclasses import replace

import pytest
import torch
from device import DEVICE
from networks import NARROW
from tiny_training import CONFIG, doubled, feeds, spawn, start

from feinfn.config import TrainConfig
from feinfn.errors import OutOfMemory, UserError
from feinfn.methods.feinfn.model import FeINFN
from feinfn.training.schedule import batches
from feinfn.training.train import check_batch, explain_oom
from feinfn.training.trainer import Trainer

EVERY_LOSS = replace(CONFIG, ssim_weight=0.1, sam_weight=0.1, loss="charbonnier")


def gradient(folder, accumulate: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return loss and gradient of the first batch in float64, from these workers together."""
    patches, _ = feeds(EVERY_LOSS)
    torch.manual_seed(5)
    trainer = Trainer(FeINFN(NARROW).to(DEVICE).double(), EVERY_LOSS, 5, folder)
    share = next(batches(patches.windows(5, 0), EVERY_LOSS.batch_size, 5, 0))
    loss = trainer._gradient(doubled(patches, share), accumulate)
    trainer.network = trainer.model
    return loss, [w.grad for w in trainer.weights if w.grad is not None]


@pytest.mark.parametrize("accumulate", [2, 3, 6])
def test_parts_of_a_batch_make_the_gradient_of_the_whole(tmp_path, accumulate):
    (loss, whole), (loss_parts, parts) = (gradient(tmp_path, n) for n in (1, accumulate))
    torch.testing.assert_close(loss, loss_parts, rtol=1e-12, atol=0)
    for a, b in zip(whole, parts, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def _shared(rank: int, folder) -> None:
    found = {}
    for accumulate in (1, 3):
        found[accumulate] = gradient(folder, accumulate)
    if rank == 0:
        torch.save(found, folder / "found.pt")


def test_two_workers_with_parts_make_the_gradient_of_one(tmp_path):
    assert spawn(2, _shared, tmp_path) == [0, 0]
    loss, alone = gradient(tmp_path, 1)
    for loss_found, grads in torch.load(tmp_path / "found.pt").values():
        torch.testing.assert_close(loss, loss_found, rtol=1e-12, atol=0)
        for a, b in zip(alone, grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_parts_that_do_not_divide_the_share_are_refused(monkeypatch):
    patches, _ = feeds()
    for wrong in (0, 4):
        with pytest.raises(UserError, match=rf"accumulate: found {wrong}, expected a divisor of"):
            check_batch(patches, CONFIG, wrong)
    monkeypatch.setattr("feinfn.training.train.world", lambda: (0, 3))
    check_batch(patches, CONFIG, 2)
    with pytest.raises(UserError, match=r"found 3, expected a divisor of the 2 patches that each"):
        check_batch(patches, CONFIG, 3)


def test_too_little_memory_is_explained_and_nothing_of_the_step_lives_on(tmp_path, monkeypatch):
    alive: list[weakref.ref] = []

    def too_large(config: TrainConfig, fused, reference, errors):
        alive.extend(weakref.ref(tensor) for tensor in (fused, reference))
        if len(alive) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore")
        return fused.mean()

    monkeypatch.setattr("feinfn.training.trainer.training_loss", too_large)
    gc.disable()
    try:
        with pytest.raises(
            OutOfMemory, match=r"batch_size 6 on 1 workers, so 3 patches of 16 px at"
        ):
            start(tmp_path, lambda told: None, accumulate=2)
        with pytest.raises(OutOfMemory) as caught:
            start(tmp_path, lambda told: None, accumulate=2)
        # The traceback is still held; collecting would free what only cycles hold.
        left = [ref() for ref in alive if ref() is not None]
    finally:
        gc.enable()
    assert len(alive) >= 4
    assert left == []
    error = caught.value
    assert error.__context__ is None
    for word in ("accumulate (up to 6)", "recompute: true", "patch_px", "memory_mib", "2.00 GiB"):
        assert word in str(error)
    assert "more" not in str(error)
    given = (torch.OutOfMemoryError("CUDA out of memory."), replace(NARROW, base="local"))
    assert "memory_mib" not in str(explain_oom(*given, CONFIG, 1))
    # It crosses process boundaries.
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (OutOfMemory, str(error))
    held = [
        value
        for frame, _ in traceback.walk_tb(error.__traceback__)
        for value in frame.f_locals.values()
        if isinstance(value, Trainer)
    ]
    assert held == []


def test_after_too_little_memory_the_same_step_is_taken_in_parts(tmp_path, monkeypatch):
    loss, asked = Trainer._gradient, iter(range(100))

    def failing(trainer, pair, accumulate):
        if accumulate == 1 and next(asked) == 5:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return loss(trainer, pair, accumulate)

    told: list = []
    monkeypatch.setattr(Trainer, "_gradient", failing)
    with pytest.raises(OutOfMemory):
        start(tmp_path / "parts", told.append)
    start(tmp_path / "parts", told.append, accumulate=2)
    monkeypatch.undo()
    whole: list = []
    start(tmp_path / "whole", whole.append)
    assert [epoch for epoch, _ in told] == [epoch for epoch, _ in whole]
    for (_, a), (_, b) in zip(told, whole, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-3)
