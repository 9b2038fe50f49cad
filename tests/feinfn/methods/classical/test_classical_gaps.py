"""Pixels without data take no part in what classical methods fit, and have none in the result."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import NARROW

from feinfn.config import DataConfig
from feinfn.data.export import export, simulated_pairs
from feinfn.data.pairs import ScenePairs, StoredPairs
from feinfn.data.readers.formats import read_prepared
from feinfn.data.scene import make_scene
from feinfn.data.source import load_scene, resolve_data
from feinfn.errors import UserError
from feinfn.evaluation import by_classical, evaluate_method
from feinfn.methods.classical.registry import CLASSICAL
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import simulate
from feinfn.region import fused_valid

CAVE = PROTOCOLS["cave_x4"]
DATA = resolve_data(DataConfig())


def images(columns: int = 64):
    """Return LR-HSI, MSI and wavelengths of a window of a real scene."""
    scene = load_scene(DATA, f"{DATA.train[0]}[40:88, 30:{30 + columns}]")
    pair = simulate(torch.from_numpy(scene.cube())[None], scene.wavelengths_nm, CAVE)
    return pair.lr_hsi_BShw[0].numpy(), pair.msi_BMHW[0].numpy(), scene.wavelengths_nm


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("srf", ["table", "measured"])
def test_what_lies_in_gaps_changes_nothing(name, srf):
    lr_hsi, msi, nm = images()
    protocol = CAVE if srf == "table" else replace(CAVE, srf="measured")
    valid, lr_valid = np.ones((48, 64), bool), np.ones((12, 16), bool)
    valid[10:17, 20:30] = valid[40, 60] = lr_valid[9, 2:5] = False
    results = []
    for garbage in (0.0, 0.8, np.nan):
        wild = np.where(lr_valid, lr_hsi, garbage), np.where(valid, msi, garbage)
        results.append(CLASSICAL[name].fuse(*wild, protocol, nm, lr_valid, valid))
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])
    np.testing.assert_array_equal(
        ~np.isnan(results[0]).any(0), fused_valid(valid, lr_valid, (48, 64))
    )


@pytest.mark.parametrize("name", CLASSICAL)
def test_half_an_image_without_data_is_as_if_it_were_cut_off(name):
    lr_hsi, msi, nm = images()
    valid, lr_valid = np.ones((48, 64), bool), np.ones((12, 16), bool)
    # No PSF of this protocol reaches from one LR pixel's ground to another's.
    valid[:, 40:] = lr_valid[:, 10:] = False
    fused = CLASSICAL[name].fuse(lr_hsi, msi, CAVE, nm, lr_valid, valid)
    cut = CLASSICAL[name].fuse(lr_hsi[..., :10], msi[..., :40], CAVE, nm)
    assert np.isnan(fused[..., 40:]).all()
    # The local regression goes on into the gap, for as far as the interpolation reads.
    same = 28 if name == "local" else 40
    limit = 2e-4 if name == "subspace" else 2e-6
    np.testing.assert_allclose(fused[..., :same], cut[..., :same], rtol=0, atol=limit)


def test_too_few_pixels_to_fit_are_refused():
    lr_hsi, msi, nm = images()
    valid = np.ones((48, 64), bool)
    valid[2::4, 2::4] = False
    with pytest.raises(UserError, match="no LR pixel with data whose PSF"):
        CLASSICAL["gsa"].fuse(lr_hsi, msi, CAVE, nm, None, valid)


def test_scenes_with_gaps_are_fused_and_scored():
    valid = np.ones((48, 64), bool)
    valid[:, 50:] = False
    cube = load_scene(DATA, f"{DATA.train[0]}[40:88, 30:94]").cube()
    scores = {}
    for fill in (0.0, 1.0):
        made = make_scene(
            "gaps", np.where(valid, cube, np.float32(fill)), np.arange(400.0, 701.0, 10.0), "memory"
        )
        pairs = ScenePairs([replace(made, valid_HW=valid)], CAVE, NARROW, torch.device("cpu"))
        (one,) = evaluate_method(by_classical(CLASSICAL["gsa"], CAVE), pairs)
        assert torch.isfinite(one.fused_SHW).all()
        scores[fill] = one.scores
    assert scores[0.0] == scores[1.0]


def test_scenes_with_gaps_and_their_exported_files_have_the_same_scores(tmp_path):
    protocol, valid = PROTOCOLS["lso_x4"], np.ones((48, 64), bool)
    valid[20:23, 50:] = False
    cube = load_scene(DATA, f"{DATA.train[0]}[40:88, 30:94]").cube()
    made = make_scene("gaps", np.where(valid, cube, 0), np.arange(400.0, 701.0, 10.0), "memory")
    scene = replace(made, valid_HW=valid)
    export(simulated_pairs([scene], protocol, None), tmp_path / "gaps.h5", {})
    device = torch.device("cpu")
    stored = StoredPairs([read_prepared(tmp_path / "gaps.h5")], protocol, NARROW, device)
    ((one, own),) = zip(
        *(
            evaluate_method(by_classical(CLASSICAL["gsa"], protocol), images)
            for images in (stored, ScenePairs([scene], protocol, NARROW, device))
        ),
        strict=True,
    )
    assert torch.equal(one.image.valid, own.image.valid)
    assert one.scores == own.scores
