"""What is kept of a trial's test images."""

import numpy as np
import pytest
import torch

from feinfn.data.pairs import NamedInputs
from feinfn.protocols.simulate import Inputs, Pair
from mhiflab.execute.evaluate import window
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
