"""The training loop: it learns, resumes bit for bit, diverges loudly, and shares batches."""

import math
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from device import DEVICE, one_order_of_sums
from networks import LEARNING
from tiny_training import doubled, join, meeting

from feinfn.config import RECIPES, DataConfig, TrainConfig
from feinfn.data.pairs import ScenePairs
from feinfn.data.patches import Patches
from feinfn.data.source import load_scene, resolve_data
from feinfn.errors import UserError
from feinfn.evaluation import by_network, evaluate_method
from feinfn.files import BEST, STATE, write_atomic
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.registry import build
from feinfn.methods.sensor import Sensor, sensor_of
from feinfn.methods.weights import load_model
from feinfn.metrics.label import CONVENTION
from feinfn.protocols.named import PROTOCOLS
from feinfn.training.checkpoint import parse_state, read_state
from feinfn.training.precision import check_precision, native_bfloat16
from feinfn.training.schedule import batches, learning_rate
from feinfn.training.train import train
from feinfn.training.trainer import Trainer

CONFIG = TrainConfig(
    epochs=3, batch_size=4, patch_px=32, stride_px=32, lr=1e-3, ema_decay=0.9, clip_norm=1.0
)
CAVE, CPU = PROTOCOLS["cave_x4"], torch.device("cpu")


def data(config: TrainConfig = CONFIG) -> tuple[Patches, ScenePairs]:
    names = resolve_data(DataConfig())
    train, validation = (
        [load_scene(names, n) for n in part] for part in (names.train[:1], names.validation)
    )
    pairs = ScenePairs(validation, CAVE, LEARNING, DEVICE)
    return Patches(train, CAVE, config, DEVICE), pairs


def fit(folder: Path, config: TrainConfig = CONFIG, on_epoch=lambda report: None):
    one_order_of_sums()
    patches, validation = data(config)
    torch.manual_seed(5)
    model = FeINFN(LEARNING).to(DEVICE)
    best = train(model, patches, validation, config, 5, folder, on_epoch)
    return model, best


def saved(folder: Path) -> dict:
    path = folder / STATE
    return parse_state(read_state(path), CPU, path)


def test_bfloat16_training_learns_nearly_as_float32(tmp_path, monkeypatch):
    # Emulated where the CPU has no such products, with the same results.
    monkeypatch.setattr("feinfn.training.precision.native_bfloat16", lambda: True)
    scores = {}
    for precision in ("float32", "bfloat16"):
        _, best = fit(tmp_path / precision, replace(CONFIG, precision=precision))
        scores[precision] = best["val_psnr"]
    assert scores["float32"] != scores["bfloat16"]
    assert abs(scores["float32"] - scores["bfloat16"]) < 0.3


@pytest.mark.parametrize(
    ("architecture", "capabilities", "native"),
    [
        ("x86_64", {"avx512_bf16": True, "amx_bf16": False}, True),
        ("x86_64", {"avx512_bf16": False, "amx_bf16": True}, True),
        ("x86_64", {"avx512_bf16": False, "amx_bf16": False, "avx2": True}, False),
        ("aarch64", {"bf16": True}, True),
        ("aarch64", {"bf16": False}, False),
        ("ppc64le", {}, True),
    ],
)
def test_bfloat16_is_refused_where_the_cpu_would_emulate_it(
    architecture, capabilities, native, tmp_path, monkeypatch
):
    found = {"architecture": architecture, **capabilities}
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: found)
    assert native_bfloat16() == native
    config = replace(CONFIG, precision="bfloat16", epochs=1)
    if native:
        check_precision(config, CPU)
        return
    message = r"train.precision: found 'bfloat16', expected float32, because"
    with pytest.raises(UserError, match=message):
        check_precision(config, CPU)
    if DEVICE.type == "cpu":
        with pytest.raises(UserError, match=message):
            fit(tmp_path, config)
        assert not list(tmp_path.iterdir()), "nothing was trained"
    check_precision(config, torch.device("cuda"))
    check_precision(CONFIG, CPU)


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path):
    whole, best = fit(tmp_path / "whole")

    def stop(report):
        if report.epoch == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "cut", on_epoch=stop)
    epochs = []
    resumed, best_resumed = fit(tmp_path / "cut", on_epoch=lambda r: epochs.append(r.epoch))
    assert epochs == [3]
    assert best == best_resumed
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name
    states = [saved(tmp_path / d) for d in ("whole", "cut")]
    assert all(torch.equal(a, b) for a, b in zip(*(s["average"] for s in states), strict=True))


def test_a_network_on_a_base_is_tested_as_it_was_validated(tmp_path):
    config = replace(CONFIG, epochs=2, loss="relative", ssim_weight=0.0, augment=True)
    physics = {"base": "local", "consistency": "msi", "residual_scale": 0.1, "zero_start": True}
    model_config = replace(LEARNING, shown=None, **physics)
    patches, validation = data(config)
    sensor = sensor_of(model_config, CAVE, patches.scenes[0].wavelengths_nm)
    model = build(model_config, sensor=sensor)
    patches = Patches(patches.scenes, CAVE, config, CPU, start=model.start)
    reports = []
    best = train(model, patches, validation, config, 5, tmp_path, reports.append)
    assert 0.5 < reports[0].metrics["loss"] < 1.5, "errors are relative to those of the base"
    loaded = load_model(tmp_path / BEST)
    scores = [one.scores[CONVENTION] for one in evaluate_method(by_network(loaded), validation)]
    assert best["val_psnr"] == sum(one["psnr"] for one in scores) / len(scores)
    assert best["val_psnr"] > 40


def test_loss_falls_and_best_weights_are_kept(tmp_path):
    reports = []
    config = replace(CONFIG, ema_decay=None)
    _, best = fit(tmp_path, config, reports.append)
    assert reports[-1].metrics["loss"] < reports[0].metrics["loss"]
    assert best["val_psnr"] == max(r.metrics["val_psnr"] for r in reports)
    assert (tmp_path / BEST).is_file()


def test_diverging_loss_stops_and_keeps_the_last_good_state(tmp_path):
    patches, validation = data()
    model = FeINFN(LEARNING).to(DEVICE)

    def poison(report):
        if report.epoch == 1:
            scene = patches.scenes[0]
            patches.scenes = [replace(scene, raw_SHW=scene.cube() * math.nan)]

    with pytest.raises(UserError, match=r"diverged: the loss was nan at step 5 \(epoch 2\)"):
        train(model, patches, validation, CONFIG, 5, tmp_path, poison)
    state = saved(tmp_path)
    assert state["progress"][0] == 1
    assert all(torch.isfinite(w).all() for w in state["model"].values())


def test_too_large_batch_is_named(tmp_path):
    with pytest.raises(UserError, match="at most the 16 training patches"):
        fit(tmp_path, replace(CONFIG, batch_size=17))


def test_schedule_and_order():
    config = TrainConfig(epochs=10, lr=1.0, lr_final=0.1, warmup_epochs=2)
    rates = [learning_rate(config, e) for e in range(10)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[2] == pytest.approx(1.0)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    once, again, other = (list(batches(range(10), 4, 1, e)) for e in (3, 3, 4))
    assert once == again != other
    assert len(once) == 2
    halfway = learning_rate(config, 2, 0.5)
    assert rates[3] < halfway < rates[2]
    linear = replace(config, schedule="linear")
    assert learning_rate(linear, 6) == pytest.approx(0.55)


def test_released_schedule_turns_back_every_300_epochs():
    released = RECIPES["released"]
    # Read off the authors' scheduler, epochs counted from 1.
    known = {1: 2e-4, 151: 1.05e-4, 301: 1e-5, 601: 2e-4, 2000: 5.836e-5}
    for epoch, rate in known.items():
        assert learning_rate(released, epoch - 1, 0.5) == pytest.approx(rate, rel=1e-3)


def _gradient(rank: int, workers: int, folder: str, port: int) -> None:
    """Write rank 0's gradient of one step over a batch of four, shared by all workers."""
    if workers > 1:
        join(port, rank, workers)
    torch.set_num_threads(1)
    patches, _ = data()
    torch.manual_seed(5)
    config = replace(CONFIG, ema_decay=None, clip_norm=None, epochs=1)
    trainer = Trainer(FeINFN(LEARNING).to(DEVICE).double(), config, 5, Path(folder) / "none")
    single = copy(patches)
    patches.grid = patches.grid[:4]
    patches.batch = partial(doubled, single)  # type: ignore[method-assign]
    metrics = trainer.train_epoch(patches)
    if rank == 0:
        grads = [w.grad for w in trainer.weights]
        torch.save([grads, metrics["loss"]], Path(folder) / f"{workers}.pt")
    if workers > 1:
        # Freed last, the network wrapped in `trainer` would end the group while it holds the GIL:
        # it would wait for gloo's threads, and they for the GIL to free their last work.
        del trainer
        dist.barrier()
        dist.destroy_process_group()


def test_two_workers_make_the_gradient_of_one(tmp_path):
    met = meeting()
    for workers in (1, 2):
        mp.spawn(_gradient, args=(workers, str(tmp_path), met.port), nprocs=workers)
    (one, loss_one), (two, loss_two) = (torch.load(tmp_path / f"{w}.pt") for w in (1, 2))
    assert loss_one == pytest.approx(loss_two, rel=1e-12)
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_full_disk_is_named_and_leaves_nothing(tmp_path):
    def write(path: Path) -> None:
        path.write_bytes(b"half")
        # /dev/full answers every write with "no space left on device".
        with Path("/dev/full").open("wb", buffering=0) as full:
            full.write(b"x")

    (tmp_path / "old.pt").write_bytes(b"old")
    with pytest.raises(UserError, match=r"old.pt: no space left on the disk; free some"):
        write_atomic(tmp_path / "old.pt", write)
    assert (tmp_path / "old.pt").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


def test_patches_of_another_base_than_the_networks_are_refused(tmp_path):
    patches, validation = data()
    model = build(replace(LEARNING, base="local", shown=None), sensor=Sensor(CAVE))
    with pytest.raises(UserError, match=r"model\.base: found 'local' with patches that have no"):
        train(model, patches, validation, CONFIG, 5, tmp_path, print)
