"""Reading scenes, the embedded sample, splits, fingerprints and patches; and what goes wrong."""

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from places import SHARED_DATA

from feinfn.config import DataConfig, ModelConfig
from feinfn.data import source
from feinfn.data.pairs import ScenePairs
from feinfn.data.readers.array import Options
from feinfn.data.scene import read_scene
from feinfn.errors import UserError
from feinfn.protocols.named import PROTOCOLS

CAVE, CPU = PROTOCOLS["cave_x4"], torch.device("cpu")
SAMPLE = source.resolve_data(DataConfig())
SHARED = SHARED_DATA / "cave_crop256"


def write(path: Path, cube: np.ndarray, key: str = "GT") -> Path:
    with h5py.File(path, "w") as file:
        file[key] = cube
        if cube.dtype == np.uint16:
            file[key].attrs["full_scale"] = 65535
        file["wavelength_nm"] = np.linspace(400, 700, cube.shape[0])
    return path


def test_sample_is_seven_checked_scenes_under_six_megabytes():
    parts = [SAMPLE.train, SAMPLE.validation, SAMPLE.test]
    assert [len(p) for p in parts] == [4, 1, 2]
    for name in (n for part in parts for n in part):
        scene = source.load_scene(SAMPLE, name)
        assert scene.raw_SHW.shape == (31, 128, 128)
        assert scene.cube().dtype == np.float32
        assert 0 <= scene.cube().min() < scene.cube().max() <= 1
    folder = Path(source.__file__).parent / "sample"
    assert sum(f.stat().st_size for f in folder.iterdir()) < 6_000_000


def test_demo_is_eighteen_different_scenes_and_both_sources_take_twelve_megabytes():
    demo = source.resolve_data(DataConfig(source="demo"))
    parts = [demo.train, demo.validation, demo.test]
    assert [len(p) for p in parts] == [8, 1, 9]
    assert len({name for part in parts for name in part}) == 18
    for name in (n for part in parts for n in part):
        scene = source.load_scene(demo, name)
        assert scene.raw_SHW.shape == (31, 80, 80)
        assert 0 <= scene.cube().min() < scene.cube().max() < 1
    folders = [Path(source.__file__).parent / name for name in source.EMBEDDED]
    assert sum(f.stat().st_size for folder in folders for f in folder.iterdir()) < 12_000_000


def test_changed_sample_is_refused(monkeypatch):
    name = SAMPLE.train[0]
    manifest = {name: {**source.embedded_scenes("sample")[name], "sha256": "0" * 64}}
    monkeypatch.setattr(source, "embedded_scenes", lambda name: manifest)
    with pytest.raises(UserError, match=r"found SHA-256 .* expected 000000000000"):
        source.load_scene(SAMPLE, name)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the CAVE crops are not on this machine")
def test_sample_is_cut_from_the_original_scenes():
    for name in SAMPLE.test:
        with (
            h5py.File(SHARED / f"{name}.h5") as full,
            h5py.File(Path(source.__file__).parent / "sample" / f"{name}.h5") as crop,
        ):
            top = crop.attrs["crop_y"] - full.attrs["crop_y"]
            left = crop.attrs["crop_x"] - full.attrs["crop_x"]
            expected = full["GT"][:, top : top + 128, left : left + 128]
            np.testing.assert_array_equal(crop["GT"][()], expected)


@pytest.mark.parametrize(
    ("cube", "message"),
    [
        (np.full((3, 8, 8), np.nan, np.float32), "192 NaN or inf values"),
        (np.full((3, 8, 8), 1.5, np.float32), r"from 1.5 to 1.5, expected \[0, 1\]"),
        (np.full((3, 8, 8), -0.5, np.float32), "from -0.5"),
        (np.zeros((3, 8, 8), np.int32), "type int32"),
        (np.zeros((8, 8), np.float32), "expected three axes, bands, rows"),
    ],
)
def test_bad_values_are_named(cube, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        read_scene(write(tmp_path / "bad.h5", cube))
    assert "bad.h5" in str(caught.value)


def test_missing_truncated_and_wrong_key_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_scene(tmp_path / "absent.h5")
    good = write(tmp_path / "whole.h5", np.random.default_rng(0).random((3, 64, 64)))
    (tmp_path / "half.h5").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    with pytest.raises(UserError, match="truncated"):
        read_scene(tmp_path / "half.h5")
    wrong = write(tmp_path / "key.h5", np.zeros((3, 8, 8), np.float32), key="cube")
    with pytest.raises(UserError, match=r"key.h5: found arrays cube \(3, 8, 8\).*expected GT;"):
        read_scene(wrong, Options(key="GT"))


def test_integers_and_floats_of_equal_pixels_have_one_hash(tmp_path):
    counts = np.random.default_rng(0).integers(0, 65536, (3, 8, 8)).astype(np.uint16)
    a = read_scene(write(tmp_path / "a.h5", counts))
    b = read_scene(write(tmp_path / "b.h5", counts.astype(np.float32) / np.float32(65535)))
    assert a.pixel_hash() == b.pixel_hash()


def test_fingerprint_follows_pixels_and_split():
    swapped = replace(SAMPLE, train=SAMPLE.train[:3] + SAMPLE.test[:1], test=SAMPLE.train[3:])
    assert (
        source.survey(SAMPLE).fingerprint
        == source.survey(source.resolve_data(DataConfig())).fingerprint
    )
    assert source.survey(SAMPLE).fingerprint != source.survey(swapped).fingerprint


def test_scene_in_two_parts_is_refused():
    with pytest.raises(UserError, match=r"data.test: found 'a', .* in data.train too"):
        DataConfig(source="folder", train=("a",), validation=("b",), test=("a",))


def test_wrong_band_counts_are_named():
    scene = source.load_scene(SAMPLE, SAMPLE.train[0])
    for change, message in [({"hsi_bands": 30}, "found 31 bands"), ({"msi_bands": 4}, "msi_bands")]:
        with pytest.raises(UserError, match=message):
            ScenePairs([scene], CAVE, ModelConfig(**change), CPU)


def test_windows_of_scenes_are_read_and_never_shared_between_parts():
    name = f"{SAMPLE.train[0]}[16:80, 0:128]"
    scene = source.load_scene(SAMPLE, name)
    assert scene.name == name
    full = source.load_scene(SAMPLE, SAMPLE.train[0])
    np.testing.assert_array_equal(scene.cube(), full.cube()[:, 16:80])
    with pytest.raises(UserError, match=r"rows within \[0, 128\)"):
        source.load_scene(SAMPLE, f"{SAMPLE.train[0]}[16:200, 0:128]")
    with pytest.raises(UserError, match=r"data.test: found 'a\[60:90, 0:9\]', .*\(a\[0:64, 0:64\]"):
        DataConfig(train=("a[0:64, 0:64]",), validation=("b",), test=("a[60:90, 0:9]",))
    DataConfig(train=("a[0:64, 0:64]",), validation=("b",), test=("a[64:90, 0:9]",))
    for bad in ("a[0:64]", "a[9:3, 0:4]", "a[", ""):
        with pytest.raises(UserError, match=r"data\.train: found"):
            DataConfig(train=(bad,))


def test_unknown_scenes_name_the_nearest():
    with pytest.raises(UserError, match="found 'cloth', did you mean 'cloth_ms'"):
        source.resolve_data(DataConfig(train=("cloth",)))
