"""Splits: a test scene can never train or choose, in ours and in a user's own."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feinfn.data.splits import PARTS, SPLITS, read_split
from feinfn.errors import UserError


@pytest.mark.parametrize("name", SPLITS)
def test_published_splits_are_disjoint_and_whole(name):
    parts = read_split(name).parts()
    sizes = [len(parts[part]) for part in PARTS]
    assert sizes == [17, 3, 11 if "20_11" in name else 12]
    assert len(set().union(*parts.values())) == sum(sizes)


def test_validation_is_cut_by_the_stated_rule():
    chosen = read_split("alphabetical_20_12")
    assert chosen.validation == ("balloons_ms", "face_ms", "fake_and_real_sushi_ms")
    a, b = read_split("mhfnet_20_12"), read_split("mhfnet_minus_watercolors_20_11")
    assert (a.train, a.validation) == (b.train, b.validation)
    assert set(a.test) - set(b.test) == {"watercolors_ms"}


@given(st.fixed_dictionaries({part: st.lists(st.sampled_from("abcdefgh")) for part in PARTS}))
def test_no_scene_can_stand_in_two_parts_of_a_users_file(parts):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.json"
        path.write_text(json.dumps(parts))
        names = [name for part in PARTS for name in parts[part]]
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if names and not twice:
            assert read_split(str(path)).parts() == {part: tuple(parts[part]) for part in PARTS}
            return
        with pytest.raises(UserError, match=f"scene '{twice[0]}'" if twice else "no scenes") as e:
            read_split(str(path))
        assert "own.json" in str(e.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as a JSON split"),
        ('["a"]', "found list, expected exactly the keys train, validation and test"),
        ('{"train": ["a"], "test": ["b"]}', r"found \['test', 'train'\]"),
        ('{"train": "a", "validation": [], "test": []}', "each a list of scene names"),
        ('{"train": [1], "validation": [], "test": []}', "each a list of scene names"),
    ],
)
def test_bad_split_files_are_named(text, message, tmp_path):
    path = tmp_path / "own.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_split(str(path))


def test_unknown_split_lists_the_known_ones():
    with pytest.raises(UserError, match="'harvard': unknown, expected one of mhfnet_20_12"):
        read_split("harvard")
