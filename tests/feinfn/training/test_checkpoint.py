"""States on disk: damage is noticed, told once, and never costs more than the epochs since."""

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from networks import NARROW
from safetensors.torch import load_file
from tiny_training import CONFIG, same, start, state

from feinfn.errors import UserError
from feinfn.files import BEST, STATE, DamagedError
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.weights import save_weights
from feinfn.training.checkpoint import HEADER, newest_state, previous_state, read_state, save_state
from feinfn.training.trainer import Trainer


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


DAMAGE = {
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "cut short": (lambda path: os.truncate(path, path.stat().st_size - 1), "cut short"),
    "only its start": (lambda path: os.truncate(path, HEADER - 3), "cut short"),
    "flipped bit": (lambda path: _flip(path, path.stat().st_size // 2), "its bytes changed"),
    "flipped bit at the start": (lambda path: _flip(path, 2), "is no training state"),
    "flipped bit of the checksum": (lambda path: _flip(path, HEADER - 1), "its bytes changed"),
    "pickle": (lambda path: path.write_bytes(pickle.dumps({"a": 1})), "is no training state"),
    "plain torch file": (lambda path: torch.save({"a": 1}, path), "is no training state"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_newest_state_gives_way_to_the_one_before(tmp_path, kind):
    path, told = tmp_path / STATE, []
    for epoch in (1, 2):
        save_state(path, {"epoch": epoch, "w": torch.ones(9)})
    older = read_state(previous_state(path))
    damage, wrong = DAMAGE[kind]
    damage(path)
    assert newest_state(path, told.append) == older
    (message,) = told
    assert str(path) in message
    assert wrong in message
    assert "put aside as state.pt.damaged; training continues from state.previous.pt" in message
    # Told once, and the next save does not put the damaged file in the intact one's place.
    assert newest_state(path, told.append) == older
    save_state(path, {"epoch": 3})
    assert read_state(previous_state(path)) == older
    assert len(told) == 1


def test_two_damaged_states_start_from_the_beginning(tmp_path):
    path, told = tmp_path / STATE, []
    for epoch in (1, 2):
        save_state(path, {"epoch": epoch})
    path.write_bytes(b"")
    _flip(previous_state(path), 99)
    assert newest_state(path, told.append) is None
    (message,) = told
    assert "state.pt is empty" in message
    assert "state.previous.pt does not fit its checksum" in message
    assert "training starts from the beginning" in message


def test_a_cut_between_the_renames_leaves_the_state_before(tmp_path):
    path = tmp_path / STATE
    save_state(path, {"epoch": 1})
    payload = read_state(path)
    path.replace(previous_state(path))
    assert newest_state(path, pytest.fail) == payload


def test_state_has_its_name_at_every_moment(tmp_path, monkeypatch):
    path = tmp_path / STATE
    save_state(path, {"epoch": 1})
    rename, first = Path.replace, read_state(path)

    def look(self: Path, target: Path) -> Path:
        assert read_state(path) == first
        done = rename(self, target)
        read_state(path)
        return done

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", look)
        save_state(path, {"epoch": 2})
    assert read_state(previous_state(path)) == first != read_state(path)
    # Cut after the first of both renames: the next save finds two names of one file.
    previous_state(path).unlink()
    previous_state(path).hardlink_to(path)
    second = read_state(path)
    save_state(path, {"epoch": 3})
    assert read_state(previous_state(path)) == second != read_state(path)
    assert len(list(tmp_path.iterdir())) == 2


def test_states_are_kept_without_hard_links(tmp_path, monkeypatch):
    path = tmp_path / STATE

    def refuse(self: Path, target: Path) -> None:
        raise PermissionError("not supported")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    save_state(path, {"epoch": 1})
    first = read_state(path)
    save_state(path, {"epoch": 2})
    assert read_state(previous_state(path)) == first
    assert len(list(tmp_path.iterdir())) == 2


def test_file_is_on_the_disk_before_it_takes_its_name(tmp_path, monkeypatch):
    path, synced = tmp_path / STATE, []

    def note(number: int) -> None:
        synced.append((str(Path(f"/proc/self/fd/{number}").readlink()), path.exists()))

    monkeypatch.setattr(os, "fsync", note)
    save_state(path, {"epoch": 1})
    (file, existed), (folder, exists) = synced
    assert file.endswith(".partial")
    assert not existed
    assert (folder, exists) == (str(tmp_path), True)


@pytest.mark.parametrize("size", [1, 10**6])
def test_full_disk_is_named_and_keeps_both_states(tmp_path, monkeypatch, size):
    path = tmp_path / STATE
    for epoch in (1, 2):
        save_state(path, {"epoch": epoch})
    kept = {file: file.read_bytes() for file in tmp_path.iterdir()}
    opened = Path.open
    # /dev/full answers every write with "no space left on device".
    monkeypatch.setattr(Path, "open", lambda self, mode: opened(Path("/dev/full"), mode))
    with pytest.raises(UserError, match=r"state.pt: no space left on the disk"):
        save_state(path, {"w": torch.ones(size)})
    monkeypatch.undo()
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == kept


def _trainer(folder: Path, config=CONFIG, model=NARROW, seed=1, warn=pytest.fail) -> Trainer:
    return Trainer(FeINFN(model), config, seed, folder, warn)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": replace(NARROW, feat_dim=5)}, r"model.feat_dim: found 4, expected 5"),
        ({"config": replace(CONFIG, lr=1.0)}, r"train.lr: found 0.001, expected 1.0"),
        ({"seed": 2}, r"seed: found 1, expected 2"),
    ],
)
def test_state_of_another_spec_is_refused(tmp_path, change, named):
    _trainer(tmp_path).save()
    with pytest.raises(UserError, match=rf"state.pt: {named}: this state is of another training"):
        _trainer(tmp_path, **change)
    assert (tmp_path / STATE).is_file()


def test_states_of_versions_without_physics_go_on(tmp_path):
    _trainer(tmp_path).save()
    spec = state(tmp_path)["spec"]
    assert not {"model.base", "model.shown", "model.consistency"} & set(spec)
    with pytest.raises(UserError, match=r"model.base: found None, expected 'gsa'"):
        _trainer(tmp_path, model=replace(NARROW, base="gsa", shown="image"))


def test_state_of_another_format_is_refused(tmp_path, monkeypatch):
    _trainer(tmp_path).save()
    monkeypatch.setattr("feinfn.training.trainer.FORMAT", 2)
    with pytest.raises(UserError, match=r"state.pt: format: found 1, expected 2"):
        _trainer(tmp_path)
    save_state(tmp_path / STATE, {"something": "else"})
    with pytest.raises(UserError, match=r"state.pt: format: found None, expected 2"):
        _trainer(tmp_path)


def test_objects_other_than_tensors_and_plain_values_are_not_loaded(tmp_path):
    save_state(tmp_path / STATE, {"path": Path("x")})
    with pytest.raises(UserError, match=r"is intact but cannot be read"):
        _trainer(tmp_path)


def _with_best(folder: Path) -> Trainer:
    """Save a state that knows best weights, and the file of them."""
    trainer = _trainer(folder)
    trainer.best = {"epoch": 3, "val_psnr": 30.0}
    trainer.best_weights = {k: w.clone() for k, w in trainer.model.state_dict().items()}
    trainer.restore_best_file = lambda: None  # type: ignore[method-assign]
    save_weights(folder / BEST, trainer.best_weights, NARROW, trainer.best)
    trainer.save()
    return trainer


@pytest.mark.parametrize(
    ("damage", "wrong"),
    [
        (lambda path: path.unlink(), "cannot be read"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "cannot be read"),
        (lambda path: _flip(path, path.stat().st_size - 2), "holds other weights"),
    ],
)
def test_damaged_best_weights_are_told_and_written_again(tmp_path, damage, wrong):
    known, told = _with_best(tmp_path).best_weights, []
    damage(tmp_path / BEST)
    _trainer(tmp_path, warn=told.append)
    (message,) = told
    assert wrong in message
    assert "best.safetensors" in message
    assert same(load_file(tmp_path / BEST), known)


def test_best_weights_that_the_state_does_not_know_do_not_win(tmp_path):
    known = _with_best(tmp_path).best_weights
    later = {name: w + 1 for name, w in known.items()}
    save_weights(tmp_path / BEST, later, NARROW, {"epoch": 5, "val_psnr": 40.0})
    trainer = _trainer(tmp_path)
    assert trainer.best["epoch"] == 3
    assert same(load_file(tmp_path / BEST), known)


def test_training_goes_on_from_the_state_before_to_the_same_end(tmp_path):
    whole, told = tmp_path / "whole", []
    start(whole, lambda _: None)
    for wrong in (STATE, BEST):
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(whole, tmp_path / "copy")
        _flip(tmp_path / "copy" / wrong, (whole / wrong).stat().st_size - 30)
        # One epoch is repeated, or the weights are written again.
        epochs: list = []
        start(tmp_path / "copy", epochs.append, warn=told.append)
        assert [e for e, _ in epochs] == ([CONFIG.epochs] if wrong == STATE else [])
        assert same(state(whole), state(tmp_path / "copy"))
        assert same(*(load_file(d / BEST) for d in (whole, tmp_path / "copy")))
    assert len(told) == 2


def test_a_warning_reaches_whoever_asks_for_nothing(tmp_path):
    (tmp_path / STATE).touch()
    with pytest.warns(UserWarning, match=r"state.pt is empty .* starts from the beginning"):
        Trainer(FeINFN(NARROW), CONFIG, 1, tmp_path)


def test_damage_is_an_error_of_its_own(tmp_path):
    with pytest.raises(DamagedError, match="cannot be read"):
        read_state(tmp_path)
