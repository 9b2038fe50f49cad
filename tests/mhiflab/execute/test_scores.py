"""What is kept of a trial's test images."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import NARROW

from feinfn.data.pairs import NamedInputs, ScenePairs
from feinfn.data.scene import make_scene
from feinfn.metrics.conventions import CONVENTIONS
from feinfn.metrics.evaluation import Comparison
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import Inputs, Pair
from mhiflab.execute.evaluate import Scores, score_tests, window
from mhiflab.record.artifacts import FUSED, UPSAMPLED, WINDOW_PX, WINDOW_STEPS


def image(height: int, width: int, ratio: int, reference: bool) -> NamedInputs:
    draw = torch.rand(1, 9, height, width, generator=torch.Generator().manual_seed(1))
    msi, lms = draw[:, :3], draw[:, 3:6]
    lr = torch.rand(1, 3, height // ratio, width // ratio)
    pair = Pair(msi, lms, lr, draw[:, 6:])
    inputs = pair if reference else Inputs(msi, lms, lr)
    return NamedInputs("one", inputs, np.array([450.0, 550, 650]))


@pytest.mark.parametrize(("size", "ratio"), [((320, 200), 8), ((64, 48), 4), ((130, 110), 10)])
def test_window_is_one_place_of_all_images_on_the_grid_of_the_lr_hsi(size, ratio):
    one = image(*size, ratio, reference=True)
    kept = window(
        one, {FUSED: one.inputs.lms_BSHW[0] * 2, UPSAMPLED: one.inputs.lms_BSHW[0]}, ratio
    )
    row, col = kept["one/window/place"]
    msi, lr = kept["one/window/msi"], kept["one/window/lr_hsi"]
    height, width = msi.shape[1:]
    assert row % ratio == col % ratio == 0
    assert max(height, width) <= WINDOW_PX
    # The whole of a smaller image.
    assert min(height, width) > min(WINDOW_PX - ratio, *(n - 1 for n in size))
    place = slice(row, row + height), slice(col, col + width)
    np.testing.assert_array_equal(msi, one.inputs.msi_BMHW[0][:, *place])
    lr_place = slice(row // ratio, (row + height) // ratio), slice(col // ratio, None)
    expected = one.inputs.lr_hsi_BShw[0][:, *lr_place][..., : width // ratio]
    np.testing.assert_array_equal(lr, expected)
    for what, x in {"upsampled": one.inputs.lms_BSHW[0], "reference": one.reference}.items():
        stored = kept[f"one/window/{what}"] / WINDOW_STEPS
        np.testing.assert_allclose(stored, x[:, *place], atol=0.51 / WINDOW_STEPS)
    # What leaves [0, 1] is clipped, not wrapped around.
    doubled = (one.inputs.lms_BSHW[0][:, *place] * 2).clip(0, 1)
    stored = kept["one/window/fused"] / WINDOW_STEPS
    np.testing.assert_allclose(stored, doubled, atol=0.51 / WINDOW_STEPS)
    np.testing.assert_array_equal(kept["one/window/wavelengths_nm"], one.wavelengths_nm)


def test_window_of_a_real_pair_has_no_reference():
    one = image(64, 64, 4, reference=False)
    assert "one/window/reference" not in window(one, {UPSAMPLED: one.inputs.lms_BSHW[0]}, 4)


def test_pixels_without_data_are_blank_in_pictures_and_counted(capsys, tmp_path):
    cube = np.random.default_rng(0).random((31, 48, 64)).astype(np.float32)
    valid = np.ones((48, 64), bool)
    valid[:, :6] = False
    scene = make_scene("gaps", cube * valid, np.arange(400.0, 701.0, 10.0), "memory")
    scene = replace(scene, valid_HW=valid)
    images = ScenePairs([scene], PROTOCOLS["cave_x4"], NARROW, torch.device("cpu"))
    scores = score_tests(lambda image: image.inputs.lms_BSHW[0], images, tmp_path)
    # The PSF of the second column of LR pixels reaches columns 5 to 7.
    blank = np.arange(64) < 8
    assert (images[0].valid.numpy() == ~blank).all()
    for method in (FUSED, UPSAMPLED):
        for part in ("error", "sam"):
            picture = scores.pictures[f"gaps/{method}/{part}"]
            np.testing.assert_array_equal(np.isnan(picture), np.broadcast_to(blank, (48, 64)))
        assert not scores.pictures[f"gaps/{method}/rgb"][:, blank].any()
    fused = scores.images.query("convention == 'matlab'")
    means = scores.bands.groupby("method").psnr.mean()
    for row in fused.itertuples():
        assert means[row.method] == pytest.approx(row.psnr, rel=1e-12)
    for part in ("reference", FUSED, UPSAMPLED):
        kept = scores.pictures[f"gaps/window/{part}"]
        np.testing.assert_array_equal(~kept.any(axis=0), np.broadcast_to(blank, (48, 64)))
    assert "gaps: 384 of 3072 pixels have no data" in capsys.readouterr().out


def test_upsampled_images_are_scored_once_for_all_trials(monkeypatch, tmp_path):
    nm, draw = np.arange(400.0, 701.0, 10.0), np.random.default_rng(0)
    scenes = [
        make_scene(name, draw.random((31, 48, 64), np.float32), nm, "memory") for name in ("a", "b")
    ]
    images = ScenePairs(scenes, PROTOCOLS["cave_x4"], NARROW, torch.device("cpu"))
    evaluations = []
    evaluate = Comparison.evaluate

    def counted(comparison, *given):
        evaluations.append(given)
        return evaluate(comparison, *given)

    monkeypatch.setattr(Comparison, "evaluate", counted)

    def trial(scale: float, cache: Path) -> tuple[Scores, int]:
        evaluations.clear()
        scores = score_tests(lambda image: scale * image.inputs.lms_BSHW[0], images, cache)
        return scores, len(evaluations) // len(CONVENTIONS)

    (_, first), (second, then) = trial(0.9, tmp_path / "a"), trial(0.8, tmp_path / "a")
    alone, _ = trial(0.8, tmp_path / "b")
    assert (first, then) == (2 * len(scenes), len(scenes))
    for table in ("images", "bands"):
        kept, fresh = (getattr(x, table).to_csv(index=False) for x in (second, alone))
        assert kept == fresh
    assert second.pictures.keys() == alone.pictures.keys()
    for name, picture in alone.pictures.items():
        np.testing.assert_array_equal(second.pictures[name], picture)
    assert len(list((tmp_path / "a").iterdir())) == len(scenes)
    files = list((tmp_path / "a").iterdir())
    for file, content in zip(files, (b"", files[1].read_bytes()[:-100]), strict=True):
        file.write_bytes(content)
    (tmp_path / "no folder").touch()
    for cache in (tmp_path / "a", tmp_path / "no folder"):
        again, scored = trial(0.8, cache)
        assert again.images.equals(alone.images)
        assert scored == first
    assert trial(0.8, tmp_path / "a")[1] == then
    images.protocol = PROTOCOLS["cave_x8"]
    trial(0.8, tmp_path / "a")
    assert len(list((tmp_path / "a").iterdir())) == 2 * len(scenes)
