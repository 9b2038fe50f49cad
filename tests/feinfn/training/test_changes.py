"""Values that change while a network trains."""

import shutil
from dataclasses import replace

import pytest
from tiny_training import CONFIG, STEPS, in_pieces, same, start, state

from feinfn.config import Change, TrainConfig, config_at
from feinfn.errors import UserError
from feinfn.files import BEST, STATE

CHANGED = replace(
    CONFIG, changes=(Change(after_epoch=2, lr=1e-4, weight_decay=0.1), Change(after_epoch=3, lr=0))
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    told: list = []
    start(folder, told.append, CHANGED)
    return folder, told


def test_change_holds_from_its_epoch_on(whole, tmp_path):
    told: list = []
    start(tmp_path, told.append)
    assert told[:2] == whole[1][:2]
    assert [one["lr"] for _, one in told[2:]] != [one["lr"] for _, one in whole[1][2:]]
    assert config_at(CHANGED, 1) == CONFIG
    assert config_at(CHANGED, 2) == replace(CONFIG, lr=1e-4, weight_decay=0.1)
    assert config_at(CHANGED, 3) == replace(CONFIG, lr=0, weight_decay=0.1)


@pytest.mark.parametrize("cuts", [[2 * STEPS], [2 * STEPS + 1, 2], [1]])
def test_cut_around_a_change_it_ends_bit_for_bit_alike(whole, tmp_path, cuts):
    assert in_pieces(tmp_path, cuts, config=CHANGED) == whole[1]
    assert same(state(tmp_path), state(whole[0]))


def test_training_goes_on_from_the_state_of_one_that_differs_later_only(whole, tmp_path):
    told: list = []
    (tmp_path / "plain").mkdir()
    start(tmp_path / "plain", told.append, until=2)
    assert [epoch for epoch, _ in told] == [1, 2]
    (tmp_path / "changed").mkdir()
    for name in (BEST, STATE):
        shutil.copy(tmp_path / "plain" / name, tmp_path / "changed")
    start(tmp_path / "changed", told.append, CHANGED)
    assert told == whole[1]
    assert same(state(tmp_path / "changed"), state(whole[0]))


def test_state_beyond_a_change_is_of_another_training(tmp_path):
    start(tmp_path, lambda told: None, until=3)
    with pytest.raises(
        UserError, match=r"train.changes: found \[\], expected \[\{'after_epoch': 2"
    ):
        start(tmp_path, lambda told: None, CHANGED)


def test_paused_training_keeps_its_weights_and_ends_like_another(whole, tmp_path):
    told: list = []
    for epochs in (1, 1, 3, 9):
        start(tmp_path, told.append, CHANGED, until=epochs)
    assert told == whole[1]
    assert same(state(tmp_path), state(whole[0]))


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ([Change(after_epoch=0, lr=1.0)], r"after_epoch: found \[0\], expected rising numbers"),
        ([Change(after_epoch=4, lr=1.0)], r"after_epoch: found \[4\], expected .* from 1 to 3"),
        ([Change(after_epoch=2), Change(after_epoch=2)], r"after_epoch: found \[2, 2\]"),
        ([Change(after_epoch=2, lr=-1.0)], r"train.lr: found -1.0, expected a number >= 0"),
    ],
)
def test_changes_that_cannot_be_are_refused(changes, found):
    with pytest.raises(UserError, match=found):
        TrainConfig(epochs=4, changes=tuple(changes))
