"""Every learned model: shapes, gradients, state dicts, sizes, determinism, and that it learns."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from device import DEVICE
from networks import LEARNING
from safetensors.torch import load_file, save_file
from torch import nn

from feinfn.config import DataConfig, ModelConfig, TrainConfig
from feinfn.data.pairs import ScenePairs
from feinfn.data.patches import Patches
from feinfn.data.source import load_scene, resolve_data
from feinfn.errors import UserError
from feinfn.evaluation import evaluate_method
from feinfn.methods.configs import (
    LEARNED,
    ImplicitConfig,
    MSTConfig,
    NetworkConfig,
    ResidualConfig,
    ResTFNetConfig,
    SSRNetConfig,
)
from feinfn.methods.cost import costs, parameters_of
from feinfn.methods.learned.liif import ImplicitFusion
from feinfn.methods.network import fuse, pad_to_multiple
from feinfn.methods.registry import MODELS, build
from feinfn.metrics.label import CONVENTION
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import Inputs
from feinfn.training.train import train

SMALL: dict[str, Any] = {
    "feinfn": LEARNING,
    "implicit": ImplicitConfig(feat_dim=16, guide_dim=16, blocks=1, mlp_widths=(32,)),
    "ssrnet": SSRNetConfig(),
    "restfnet": ResTFNetConfig(width=4),
    "mst": MSTConfig(width=8, blocks=(1, 1, 1), expansion=2),
    "residual": ResidualConfig(width=8, blocks=1),
}
"""One small configuration of every entry; a new one is tested as soon as it stands here."""
BANDS = [(31, 3), (102, 4), (198, 9)]
SIZES = [((8, 8), 4), ((4, 4), 8), ((5, 3), 4), ((1, 2), 3)]


def inputs(bands=(31, 3), lr=(4, 4), ratio=4, dtype=torch.float32, batch=1):
    generator = torch.Generator().manual_seed(1)
    hr = (lr[0] * ratio, lr[1] * ratio)
    shapes = ((bands[1], *hr), (bands[0], *hr), (bands[0], *lr))
    return [
        torch.rand(batch, *s, generator=generator, dtype=torch.float64).to(DEVICE, dtype)
        for s in shapes
    ]


def small(name: str, **change: Any) -> nn.Module:
    torch.manual_seed(0)
    return build(replace(SMALL[name], **change)).to(DEVICE)


def test_every_entry_is_tested_and_named_by_its_key():
    assert set(SMALL) == set(MODELS)
    assert all(name == network.name for name, network in MODELS.items())
    assert all(type(SMALL[name]) is network.config_type for name, network in MODELS.items())
    assert {name: network.config_type for name, network in MODELS.items()} == LEARNED


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bands", BANDS)
def test_band_counts_and_gradients(name, bands):
    model = small(name, hsi_bands=bands[0], msi_bands=bands[1])
    assert isinstance(model, MODELS[name])
    data = inputs(bands, batch=2)
    fused = model(*data)
    assert fused.shape == data[1].shape
    fused.square().mean().backward()
    for key, parameter in model.named_parameters():
        assert not parameter.is_complex(), key
        assert parameter.grad is not None, f"{key} is not used"
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.abs().sum() > 0, f"{key} never changes"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("lr", "ratio"), SIZES)
def test_any_size_and_ratio(name, lr, ratio):
    data = inputs(lr=lr, ratio=ratio)
    fused = fuse(small(name), Inputs(*data))
    assert fused.shape == data[1].shape
    assert torch.isfinite(fused).all()


@pytest.mark.parametrize("name", MODELS)
def test_weights_survive_a_file_and_a_seed_decides_them(name, tmp_path):
    model, data = small(name), inputs()
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    torch.manual_seed(1)
    other = build(SMALL[name]).to(DEVICE)
    assert not torch.equal(other(*data), model(*data))
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(other(*data), model(*data))
    assert torch.equal(small(name)(*data), model(*data))


@pytest.mark.parametrize("name", MODELS)
def test_float64_agrees_with_float32(name):
    double = small(name).double()(*inputs(dtype=torch.float64))
    assert double.dtype == torch.float64
    assert (small(name)(*inputs()) - double).abs().max() < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_images_of_a_batch_do_not_touch(name):
    model, data = small(name), inputs(batch=2)
    alone = torch.cat([model(*(x[i : i + 1] for x in data)) for i in range(2)])
    assert torch.allclose(model(*data), alone, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_wrong_shapes_and_fields_are_named(name):
    with pytest.raises(UserError, match=r"MSI: found shape \(1, 4, 16, 16\)"):
        small(name)(*inputs((31, 4)))
    with pytest.raises(UserError, match=r"model.hsi_bands: found 0, expected an integer >= 1"):
        replace(SMALL[name], hsi_bands=0)


def test_unfit_configurations_are_refused():
    with pytest.raises(UserError, match=r"model.mlp_widths: found \(\), expected .*at least 1"):
        ImplicitConfig(mlp_widths=())
    with pytest.raises(UserError, match=r"model.msi_bands: found 4, expected at most"):
        SSRNetConfig(hsi_bands=3, msi_bands=4)
    with pytest.raises(UserError, match="model: found a NetworkConfig, expected the configuration"):
        build(NetworkConfig())


def test_default_sizes():
    released = parameters_of(ModelConfig())
    for name in ("implicit", "restfnet", "mst"):
        assert 0.85 < parameters_of(MODELS[name].config_type()) / released < 1.15, name
    assert parameters_of(SSRNetConfig()) == 3 * (9 * 31 + 1) * 31


@pytest.mark.parametrize("name", MODELS)
def test_costs_of_modules_sum_to_the_whole(name):
    whole, *parts = costs(SMALL[name], ratio=4)
    assert whole.module == MODELS[name].__name__
    top = [one for one in parts if one.module.count(".") == 1]
    assert sum(one.flop_per_pixel for one in top) <= whole.flop_per_pixel
    assert whole.parameters == parameters_of(SMALL[name])


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (5, 8), (9, 4)])
def test_padding_mirrors_without_the_edge_pixel(size):
    x = torch.rand(1, 2, *size)
    padded = pad_to_multiple(x, 4)
    assert [n % 4 for n in padded.shape[-2:]] == [0, 0]
    assert torch.equal(padded[..., : size[0], : size[1]], x)
    if size == (5, 8):
        expected = torch.nn.functional.pad(x, (0, 0, 0, 3), mode="reflect")
        assert torch.equal(padded, expected)


def test_implicit_votes_blend_linearly_between_lr_pixels():
    model = ImplicitFusion(ImplicitConfig(feat_dim=4, guide_dim=4, blocks=1, mlp_widths=(4,)))
    model.to(DEVICE)
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    # Code -> residual is made linear, so that the ensemble must be bilinear interpolation.
    for layer in (model.spectral_encoder.head, model.spectral_encoder.tail):
        layer.weight.data[0, 0, 1, 1] = 1
    model.from_feat.weight.data[0, 0] = 1
    model.layers[0].weight.data[:, 0] = 0.5
    msi, lms, lr = inputs(ratio=3)
    # Head plus tail of the encoder: twice the first band.
    expected = torch.nn.functional.interpolate(lr[:, :1], scale_factor=3, mode="bilinear")
    assert torch.allclose(model(msi, lms, lr) - lms, expected.expand_as(lms), atol=1e-5)


def test_large_images_are_made_in_parts(monkeypatch):
    model, data = small("implicit"), inputs(lr=(5, 6))
    whole = model(*data)
    monkeypatch.setattr("feinfn.methods.learned.liif.QUERIES", 100)
    assert torch.allclose(model(*data), whole, atol=1e-6)


# The two implicit networks first stay on a plateau at the LMS, longer than a test may take.
@pytest.mark.parametrize("name", sorted(set(MODELS) - {"feinfn", "implicit"}))
def test_training_beats_the_upsampled_image(name, tmp_path):
    config = TrainConfig(
        epochs=6, batch_size=4, patch_px=32, stride_px=16, sampling="random", lr=3e-3, clip_norm=1.0
    )
    data = resolve_data(DataConfig())
    scenes = [load_scene(data, n) for n in data.train[:3]]
    validation = [load_scene(data, n) for n in data.validation]
    protocol, model = PROTOCOLS["cave_x4"], small(name)
    pairs = ScenePairs(validation, protocol, SMALL[name], DEVICE)

    unchanged = evaluate_method(lambda image: image.inputs.lms_BSHW[0], pairs)
    before = [one.scores[CONVENTION]["psnr"] for one in unchanged]
    reports = []
    patches = Patches(scenes, protocol, config, DEVICE)
    best = train(model, patches, pairs, config, 5, tmp_path, reports.append)
    losses = [r.metrics["loss"] for r in reports]
    assert losses[-1] < 0.7 * losses[0]
    assert best["val_psnr"] > sum(before) / len(before) + 1
