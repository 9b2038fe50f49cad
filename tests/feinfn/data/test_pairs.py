"""Real pairs and prepared files as training and test data."""

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from feinfn.config import DataConfig, ModelConfig
from feinfn.data.export import export, simulated_pairs
from feinfn.data.pairs import (
    StoredPairs,
    has_reference,
    observed_inputs,
    prepared_file,
    simulated_inputs,
    with_reference,
)
from feinfn.data.readers.formats import read_prepared
from feinfn.data.scene import Scene, make_scene
from feinfn.errors import UserError
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import simulate, spatial

CPU = torch.device("cpu")
MEASURED = replace(PROTOCOLS["paris_x4"], msi_order=("A", "B"))
MODEL = ModelConfig(hsi_bands=5, msi_bands=2)


def pair(finer: int) -> Scene:
    draw = np.random.default_rng(finer)
    cube = draw.random((5, 16, 24), np.float32)
    msi = draw.random((2, 16 * finer, 24 * finer), np.float32)
    return replace(make_scene("pair", cube, None, "memory"), msi_MHW=msi)


def test_measured_msi_on_the_cubes_grid_is_taken_as_it_is():
    scene = pair(1)
    assert has_reference(scene)
    assert with_reference(scene, MEASURED) is scene
    found = simulated_inputs(scene, MEASURED, CPU).inputs
    np.testing.assert_array_equal(found.msi_BMHW[0], scene.msi_MHW)
    np.testing.assert_array_equal(found.reference_BSHW[0], scene.cube())
    assert found.lr_hsi_BShw.shape == (1, 5, 4, 6)


def test_pair_without_reference_is_trained_on_its_degraded_self():
    scene = pair(4)
    assert not has_reference(scene)
    found = simulated_inputs(scene, MEASURED, CPU).inputs
    # Wald's protocol: the same degradation for both sensors, the cube as reference.
    expected = spatial(MEASURED)(torch.tensor(scene.msi_MHW)[None])
    torch.testing.assert_close(found.msi_BMHW, expected, rtol=0, atol=0)
    np.testing.assert_array_equal(found.reference_BSHW[0], scene.cube())


def test_pair_without_reference_is_fused_as_measured():
    scene = pair(4)
    inputs = observed_inputs(scene, MEASURED, CPU).inputs
    np.testing.assert_array_equal(inputs.lr_hsi_BShw[0], scene.cube())
    np.testing.assert_array_equal(inputs.msi_BMHW[0], scene.msi_MHW)
    assert inputs.lms_BSHW.shape == (1, 5, 64, 96)
    with pytest.raises(UserError, match=r"MSI of 32x48 .* cube of 16x24, expected 4 times"):
        observed_inputs(pair(2), MEASURED, CPU)


def test_noise_of_a_scene_follows_its_name_and_is_repeatable():
    noisy = replace(MEASURED, hsi_snr_db=20.0)
    one, again = (simulated_inputs(pair(1), noisy, CPU).inputs.lr_hsi_BShw for _ in range(2))
    other = simulated_inputs(replace(pair(1), name="other"), noisy, CPU).inputs.lr_hsi_BShw
    clean = simulated_inputs(pair(1), MEASURED, CPU).inputs.lr_hsi_BShw
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert 0 < (one - clean).square().mean() < 0.1


def prepared(folder: Path, scenes: int = 2) -> tuple[DataConfig, list[Scene]]:
    draw = np.random.default_rng(0)
    nm = np.arange(400, 701, 10.0)
    made = [
        make_scene(f"s{i}", draw.random((31, 64, 64), np.float32), nm, "memory")
        for i in range(scenes)
    ]
    cave = PROTOCOLS["cave_x4"]
    export(simulated_pairs(made, cave, 32, 32), folder / "train.h5", {})
    data = DataConfig(source=str(folder), inputs="stored", train=("train",))
    return data, made


def test_stored_pairs_are_the_files_own_arrays(tmp_path):
    data, made = prepared(tmp_path)
    pairs = StoredPairs([prepared_file(data, "train")], PROTOCOLS["cave_x4"], ModelConfig(), CPU)
    assert len(pairs) == 8
    assert pairs[5].name == "train_00005"
    batch = pairs.batch([5, 0])
    # Each patch degraded by itself, patches row by row: number 5 is the second of scene 1.
    alone = torch.from_numpy(made[1].cube()[None, :, :32, 32:])
    expected = simulate(alone, made[1].wavelengths_nm, PROTOCOLS["cave_x4"])
    for field in fields(expected):
        found = getattr(batch, field.name)[:1]
        torch.testing.assert_close(found, getattr(expected, field.name), rtol=0, atol=1e-6)
    assert list(pairs.windows(1, 0)) == list(range(8))


def test_stored_files_of_another_ratio_or_sensor_are_named(tmp_path):
    data, _ = prepared(tmp_path, scenes=1)
    files = [read_prepared(Path(data.source) / "train.h5")]
    with pytest.raises(UserError, match=r"train.h5: found ratio 4, .* expected 8"):
        StoredPairs(files, PROTOCOLS["cave_x8"], ModelConfig(), CPU)
    with pytest.raises(UserError, match="found ratio 4, 31 bands"):
        StoredPairs(files, PROTOCOLS["cave_x4"], ModelConfig(hsi_bands=30), CPU)
