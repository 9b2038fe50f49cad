"""The readable reference against the released network, and the fast network against it."""

from dataclasses import replace

import pytest
import torch
from device import put
from reference import arrays
from test_variants import CHANGES, TINY, build, inputs

from feinfn.config import TrainConfig
from feinfn.errors import UserError
from feinfn.methods.feinfn.plain import PlainFeINFN, plain_loss
from feinfn.training.losses import training_loss


@pytest.mark.parametrize("name", ["small32_x4", "small32_x2", "small32_ratio_4x8"])
def test_output_equals_released(name, released_model):
    case = arrays(f"case_{name}")
    data = [put(case[key]).double() for key in ("hr_msi", "lms", "lr_hsi")]
    expected = put(case["output_f32"].astype(float) + case["output_f64_minus_f32"])
    with torch.no_grad():
        output = PlainFeINFN(released_model.double())(*data)
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("change", [{}, {"frequency_kernel_px": 1}, {"mlp_widths": (8,)}], ids=str)
@pytest.mark.parametrize(("lr", "hr"), [((8, 8), (32, 32)), ((4, 8), (32, 32)), ((8, 4), (16, 16))])
def test_fast_network_loss_and_gradients_equal_the_plain_ones(lr, hr, change):
    model = build(replace(TINY, **change), torch.float64)
    data = inputs(model.config, lr, hr, torch.float64, batch=2)
    reference = torch.rand_like(data[1])
    ours, plain = model(*data), PlainFeINFN(model)(*data)
    torch.testing.assert_close(ours, plain, rtol=0, atol=1e-9)
    losses = training_loss(TrainConfig(), ours, reference), plain_loss(plain, reference)
    torch.testing.assert_close(*losses, rtol=1e-6, atol=1e-8)
    wanted = list(model.parameters())
    ours, plain = (torch.autograd.grad(loss, wanted) for loss in losses)
    for (name, _), a, b in zip(model.named_parameters(), ours, plain, strict=True):
        assert (a - b).abs().max() <= 1e-6 * max(1, b.abs().max()), name


def test_weights_load_both_ways():
    plain, model = PlainFeINFN(build()), build()
    model.load_state_dict(plain.state_dict())
    plain.load_state_dict(model.state_dict())


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_only_sizes_may_differ_from_the_released_network(change):
    model, name = build(replace(TINY, **change)), next(iter(change))
    if name in ("frequency_kernel_px", "mlp_widths", "decoder_layers"):
        PlainFeINFN(model)
    else:
        with pytest.raises(UserError, match=rf"model\.{name}: found .+, expected .+ here"):
            PlainFeINFN(model)
