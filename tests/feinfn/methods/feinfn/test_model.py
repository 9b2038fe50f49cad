"""The network against the released one: outputs, intermediate tensors, gradients, names, counts."""

import numpy as np
import pytest
import torch
from device import put
from reference import SMALL, arrays

from feinfn.config import ModelConfig, TrainConfig
from feinfn.errors import UserError
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.feinfn.released import (
    load_released_state_dict,
    released_name,
    released_state_dict,
)
from feinfn.methods.network import count_parameters
from feinfn.training.losses import training_loss

DTYPES = [torch.float32, torch.float64]
CASES = ["small32_x4", "small32_x2", "small32_ratio_4x8"]


def inputs(case: dict[str, np.ndarray], dtype: torch.dtype) -> list[torch.Tensor]:
    return [put(case[k]).to(dtype) for k in ("hr_msi", "lms", "lr_hsi")]


def tolerance(reference: dict, case: str, tensor: str, dtype: torch.dtype) -> float:
    if dtype == torch.float64:
        return 1e-7
    return 25 * reference["cases"][case]["f32_vs_f64"][tensor]["max_abs"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_output_equals_released(name, dtype, reference, released_model):
    case = arrays(f"case_{name}")
    expected = put(case["output_f32"]).double()
    if dtype == torch.float64:
        expected = expected + put(case["output_f64_minus_f32"]).double()
    output = released_model.to(dtype)(*inputs(case, dtype))
    assert output.dtype == dtype
    assert (output - expected).abs().max() <= tolerance(reference, name, "output", dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tensor", ["spatial", "spectral", "spa_iff", "freq_iff"])
def test_intermediate_tensors_equal_released(tensor, dtype, reference, released_model):
    case = arrays("case_small32_x4")
    modules = {
        "spatial": released_model.spatial_encoder,
        "spectral": released_model.spectral_encoder,
        "spa_iff": released_model.spatial_fusion,
        "freq_iff": released_model.fourier_fusion,
    }
    seen = {}
    modules[tensor].register_forward_hook(lambda m, i, out: seen.update(out=out.detach()))
    released_model.to(dtype)(*inputs(case, dtype))
    expected = put(case[tensor]).double()
    # The stored tensors are float32, so a float64 run can differ by their rounding.
    rounding = expected.abs().max().item() * 2**-24
    allowed = tolerance(reference, "small32_x4", tensor, dtype) + rounding
    out = seen["out"].movedim(-1, 1) if tensor.endswith("iff") else seen["out"]
    assert (out[:1] - expected).abs().max() <= allowed


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_gradient_equals_released(dtype, released_model):
    case, grads = arrays("case_small32_x4"), arrays("grads_small32_x4")
    model = released_model.to(dtype)
    target = put(case["gt"]).to(dtype)
    (model(*inputs(case, dtype)) - target).abs().mean().backward()
    ours = {released_name(n, SMALL): p.grad for n, p in model.named_parameters()}
    names = {k.removeprefix("grad/") for k in grads if k.startswith("grad/")}
    assert names == set(ours)
    norms = {
        dtype: dict(zip(grads["grad_names"], grads[f"grad_norm_f{bits}"], strict=True))
        for dtype, bits in ((torch.float32, 32), (torch.float64, 64))
    }
    # The stored gradients are the float64 ones, rounded to float32. In float32 the released network
    # itself is off by its own float32-float64 difference, of which 25 times is allowed.
    own = max(abs(norms[torch.float32][n] / norms[torch.float64][n] - 1) for n in names)
    allowed = 1e-7 if dtype == torch.float64 else 25 * own
    for name in names:
        expected = put(grads[f"grad/{name}"]).double()
        assert (ours[name] - expected).norm() <= allowed * expected.norm(), name
        tight = 1e-10 if dtype == torch.float64 else allowed
        assert float(ours[name].norm()) == pytest.approx(norms[dtype][name], rel=tight), name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["small32_x4_noclip", "small32_x4_clip1e-4"])
def test_training_trajectory_equals_released(name, dtype, reference, released_model):
    trajectory = reference["trajectories"][name]
    case = arrays("case_small32_x4")
    model = released_model.to(dtype)
    target = put(case["gt"]).to(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, weight_decay=0.0)
    float32, float64 = (np.array(trajectory[d]["loss"]) for d in ("float32", "float64"))
    allowed = 25 * np.abs(float32 - float64) + 1e-6 if dtype == torch.float32 else 1e-7
    losses = []
    for _ in range(11):
        loss = training_loss(TrainConfig(), model(*inputs(case, dtype)), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if trajectory["max_norm"]:
            torch.nn.utils.clip_grad_norm_(model.parameters(), trajectory["max_norm"])
        optimizer.step()
    expected = float64 if dtype == torch.float64 else float32
    assert (np.abs(np.array(losses) - expected) <= allowed).all()


@pytest.mark.parametrize(
    ("config", "parameters"),
    [
        (ModelConfig(), 3_164_816),
        (ModelConfig(hsi_bands=102, msi_bands=4), 3_403_108),
        (ModelConfig(hsi_bands=128), 3_488_796),
        (SMALL, 297_392),
    ],
)
def test_parameter_counts(config, parameters):
    model = FeINFN(config)
    assert count_parameters(model) == parameters
    # Released checkpoints count 48 frozen numbers more, and 8,201 in buffers.
    assert sum(t.numel() for t in released_state_dict(model).values()) == parameters + 48 + 8201


def test_released_state_dict_round_trip(released_model, released_weights):
    back = released_state_dict(released_model)
    assert set(back) == set(released_weights)
    assert all(torch.equal(back[k].cpu(), v) for k, v in released_weights.items())


@pytest.mark.parametrize("change", ["missing", "unknown", "of another shape"])
def test_released_state_dict_that_does_not_fit_is_named(change, released_weights):
    state = dict(released_weights)
    if change == "missing":
        del state["imnet.layers.0.weight"]
    elif change == "unknown":
        state["imnet.layers.9.weight"] = torch.zeros(1)
    else:
        state["imnet.layers.0.weight"] = torch.zeros(64, 99)
    with pytest.raises(UserError, match=rf"{change}, first 'imnet"):
        load_released_state_dict(FeINFN(SMALL), state)


def test_without_fourier_branch_has_fewer_parameters_and_runs():
    model = FeINFN(ModelConfig(feat_dim=8, guide_dim=8, mlp_widths=(8,), fourier_branch=False))
    assert not [n for n, _ in model.named_parameters() if "fourier" in n]
    out = model(torch.rand(1, 3, 16, 16), torch.rand(1, 31, 16, 16), torch.rand(1, 31, 4, 4))
    assert out.shape == (1, 31, 16, 16)


@pytest.mark.parametrize(
    ("msi", "lms", "lr", "message"),
    [
        ((1, 4, 8, 8), (1, 31, 8, 8), (1, 31, 2, 2), r"MSI: found shape \(1, 4, 8, 8\)"),
        ((1, 3, 8, 8), (1, 30, 8, 8), (1, 31, 2, 2), "LMS: found shape"),
        ((1, 3, 8, 8), (1, 31, 8, 8), (1, 30, 2, 2), "LR-HSI: found shape"),
        ((1, 3, 8, 8), (1, 31, 8, 9), (1, 31, 2, 2), "do not belong together"),
    ],
)
def test_wrong_input_shapes_are_named(msi, lms, lr, message):
    model = FeINFN(ModelConfig(feat_dim=4, guide_dim=4, mlp_widths=(4,)))
    with pytest.raises(UserError, match=message):
        model(torch.rand(msi), torch.rand(lms), torch.rand(lr))
