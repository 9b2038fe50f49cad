"""Exported pairs: the layout of the literature, and what is degraded by itself."""

from collections.abc import Iterator
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from feinfn.data.export import KEYS, STRIDE_PX, export, facts, simulated_pairs
from feinfn.data.pairs import stored_pair, with_reference
from feinfn.data.readers.formats import read_prepared
from feinfn.data.scene import Scene, make_scene
from feinfn.errors import UserError
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import Pair, simulate

CAVE = PROTOCOLS["cave_x4"]
NM = np.arange(400.0, 701.0, 10.0)


def scene(height: int = 80, width: int = 72, name: str = "a") -> Scene:
    cube = np.random.default_rng(0).random((31, height, width)).astype(np.float32)
    return make_scene(name, cube, NM, f"{name}.h5")


def test_patches_are_degraded_by_themselves(tmp_path):
    one, path = scene(), tmp_path / "train.h5"
    count = export(simulated_pairs([one], CAVE, 32, 20), path, facts(CAVE, ["a"], 32, 20))
    assert count == 3 * 3
    with h5py.File(path) as file:
        assert sorted(file) == sorted(KEYS)
        shapes = {key: file[key].shape for key in KEYS}
        assert shapes == {
            "GT": (9, 31, 32, 32),
            "LRHSI": (9, 31, 8, 8),
            "RGB": (9, 3, 32, 32),
            "HSI_up": (9, 31, 32, 32),
        }
        patch = torch.from_numpy(one.cube()[:, 20:52, 40:72])[None]
        alone = simulate(patch, NM, CAVE)
        for key, field in KEYS.items():
            assert file[key].dtype == np.float32
            assert 0 <= file[key][()].min() < file[key][()].max() <= 1
            # Row 1, column 2 of the grid; batches sum in another order than single images.
            torch.testing.assert_close(
                torch.from_numpy(file[key][5]),
                getattr(alone, field)[0].clamp(0, 1),
                atol=1e-6,
                rtol=0,
            )
        assert file.attrs["band_order_of_RGB"] == "B,G,R"
        assert "each degraded by itself" in file.attrs["about"]


@pytest.mark.parametrize("ratio", [4, 8])
def test_imported_file_exports_to_the_same_bits(ratio, tmp_path):
    random, first = np.random.default_rng(ratio), tmp_path / "theirs.h5"
    sizes = {"GT": (31, 64), "LRHSI": (31, 64 // ratio), "RGB": (3, 64), "HSI_up": (31, 64)}
    with h5py.File(first, "w") as file:
        for key, (bands, side) in sizes.items():
            file[key] = random.random((3, bands, side, side)).astype(np.float32)
    theirs = read_prepared(first)

    def pairs() -> Iterator[Pair]:
        for i in range(theirs.count):
            yield Pair(*(torch.from_numpy(x)[None] for x in stored_pair(theirs, i)[0]))

    assert export(pairs(), tmp_path / "ours.h5", {}) == 3
    with h5py.File(first) as a, h5py.File(tmp_path / "ours.h5") as b:
        assert sorted(a) == sorted(b)
        for key in sizes:
            assert a[key][()].tobytes() == b[key][()].tobytes()
            assert (a[key].dtype, a[key].shape) == (b[key].dtype, b[key].shape)


def test_a_scene_of_512_pixels_gives_196_patches():
    blank = make_scene("a", np.zeros((31, 512, 512), np.uint8), NM, "a")
    protocol = replace(CAVE, psf="delta", psf_px=1, psf_sigma_px=None)
    grid = [len(p.reference_BSHW) for p in simulated_pairs([blank], protocol, 64)]
    assert (STRIDE_PX, grid) == (34, [14] * 14)


def test_whole_scenes_of_one_size_only(tmp_path):
    path = tmp_path / "test.h5"
    assert export(simulated_pairs([scene(), scene()], CAVE, None), path, {}) == 2
    before = path.read_bytes()
    with pytest.raises(UserError, match="expected one shape; export patches"):
        export(simulated_pairs([scene(), scene(72, 80)], CAVE, None), path, {})
    assert path.read_bytes() == before, "a failed export leaves the file that was there"
    assert [p.name for p in tmp_path.iterdir()] == ["test.h5"]


def test_measured_msi_is_cut_with_its_scene():
    protocol = replace(CAVE, srf="measured", msi_order=("x", "y"))
    msi = np.random.default_rng(1).random((2, 80, 72)).astype(np.float32)
    pair = list(simulated_pairs([replace(scene(), msi_MHW=msi)], protocol, 32, 20))[1]
    np.testing.assert_array_equal(pair.msi_BMHW[2], msi[:, 20:52, 40:72])


@pytest.mark.parametrize("patch", [16, None])
def test_a_finer_msi_is_degraded_to_the_grid_of_its_scene_first(patch):
    protocol = replace(CAVE, srf="measured", msi_order=("x", "y"))
    msi = np.random.default_rng(1).random((2, 320, 288)).astype(np.float32)
    finer = replace(scene(), msi_MHW=msi)
    pairs = (
        simulated_pairs([one], protocol, patch) for one in (finer, with_reference(finer, protocol))
    )
    for a, b in zip(*pairs, strict=True):
        assert torch.equal(a.msi_BMHW, b.msi_BMHW)


def test_noise_differs_between_patches_and_repeats():
    noisy = replace(CAVE, hsi_snr_db=20.0)
    flat = make_scene("a", np.full((31, 64, 64), 0.5, np.float32), NM, "a")
    first, again = (
        [p.lr_hsi_BShw for p in simulated_pairs([flat], noisy, 32, 32)] for _ in range(2)
    )
    assert all(map(torch.equal, first, again))
    patches = torch.cat(first)
    assert len({x.numpy().tobytes() for x in patches}) == 4


@pytest.mark.parametrize(("patch", "stride"), [(30, 4), (128, 4), (32, 0), (0, 4)])
def test_patches_that_do_not_fit_are_named(patch, stride, tmp_path):
    with pytest.raises(UserError, match=r"^train\.(patch|stride)_px: found \d+, expected "):
        export(simulated_pairs([scene()], CAVE, patch, stride), tmp_path / "x.h5", {})
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="nothing to export"):
        export([], tmp_path / "x.h5", {})
