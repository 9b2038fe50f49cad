"""Bases, what networks are shown, and the sensor that they know, for every learned method."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import NARROW
from safetensors import safe_open
from safetensors.torch import save_file
from test_learned import SMALL

from feinfn.config import DataConfig
from feinfn.data.pairs import NamedInputs, ScenePairs
from feinfn.data.source import load_scene
from feinfn.errors import UserError
from feinfn.evaluation import by_network
from feinfn.methods import sensor as sensor_module
from feinfn.methods.classical.registry import CLASSICAL
from feinfn.methods.cost import costs, parameters_of
from feinfn.methods.network import DIFFERENCE, fuse
from feinfn.methods.registry import MODELS, build
from feinfn.methods.sensor import Sensor, sensor_of
from feinfn.methods.weights import load_model, save_weights
from feinfn.physics import stated
from feinfn.protocols.aligned import aligned
from feinfn.protocols.consistency import project
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.operators import SpectralResponse
from feinfn.protocols.simulate import Pair, simulate, spatial

CAVE, CPU = PROTOCOLS["cave_x4"], torch.device("cpu")
BASES = ("aligned", "gsa", "local")


@pytest.fixture(scope="module")
def pair() -> Pair:
    scene = load_scene(DataConfig(), "pompoms_ms")
    cut = replace(scene, raw_SHW=scene.raw_SHW[:, :32, :48])
    inputs = ScenePairs([cut], CAVE, NARROW, CPU)[0].inputs
    assert isinstance(inputs, Pair)
    return inputs


NM = np.arange(400, 701, 10.0)
RESPONSE = SpectralResponse(torch.from_numpy(CAVE.response(31, NM)))


def network(config, protocol=CAVE):
    torch.manual_seed(0)
    return build(config, sensor=sensor_of(config, protocol, NM))


def base_of(kind, pair):
    if kind == "lms":
        return pair.lms_BSHW
    if kind == "aligned":
        return aligned(pair.lr_hsi_BShw, CAVE).clamp(0, 1)
    images = (x[0].numpy() for x in (pair.lr_hsi_BShw, pair.msi_BMHW))
    return torch.from_numpy(CLASSICAL[kind].fuse(*images, CAVE))[None]


@pytest.mark.parametrize("name", sorted(set(MODELS) - {"ssrnet"}))
@pytest.mark.parametrize("base", ["lms", *BASES])
def test_training_begins_at_the_base_and_then_moves_every_parameter(name, base, pair):
    config = replace(SMALL[name], base=base, shown=None, zero_start=True, residual_scale=0.1)
    model = network(config)
    assert torch.equal(model(*pair.inputs()), base_of(base, pair))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        (model(*pair.inputs()) - pair.reference_BSHW).square().mean().backward()
        optimizer.step()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, f"{key} never changes"


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shown", ["image", "difference"])
def test_the_residual_is_added_to_the_base_of_what_the_network_is_shown(name, shown, pair):
    config = replace(SMALL[name], base="gsa", shown=shown, residual_scale=0.5)
    model, base = network(config), base_of("gsa", pair)
    seen = []
    first = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    first.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    fused = model(*pair.inputs())
    expected = DIFFERENCE * (base_of("aligned", pair) - base) if shown == "difference" else base
    bands = 7, 11
    channels = [seen[0][:, k] for k in range(seen[0].shape[1])]
    for band in bands if name != "restfnet" else ():
        assert any(torch.equal(expected[:, band], x) for x in channels)
    whole = network(replace(config, residual_scale=1.0))(*pair.inputs())
    torch.testing.assert_close(fused - base, 0.5 * (whole - base), rtol=0, atol=1e-6)


def test_the_plain_network_sees_the_base_beside_the_difference(pair):
    image, both = (replace(SMALL["residual"], base="local", shown=s) for s in (None, "image"))
    assert parameters_of(image) - parameters_of(both) == 31 * 9 * 8
    for config in (image, both):
        assert costs(config, ratio=4)[0].parameters == parameters_of(config)


def test_bases_are_computed_once_and_forgotten_beyond_the_memory_for_them(pair, monkeypatch):
    solved = []

    def solve(problem):
        solved.append(problem)
        return problem.lms()

    monkeypatch.setitem(CLASSICAL, "gsa", replace(CLASSICAL["gsa"], solve=solve))
    sensor, two = Sensor(CAVE), Pair(*(torch.cat([x, x / 2]) for x in vars(pair).values()))
    for _ in range(2):
        _, base = sensor.start("gsa", two)
        torch.testing.assert_close(base, two.lms_BSHW, rtol=0, atol=1e-6)
    assert len(solved) == 2
    Sensor(replace(CAVE, phase_px=1)).start("gsa", pair)
    assert len(solved) == 3
    monkeypatch.setattr(sensor_module, "KEPT_BYTES", 0)
    sensor = Sensor(replace(CAVE, phase_px=0))
    for count in (4, 5):
        sensor.start("gsa", pair)
        assert len(solved) == count


@pytest.mark.parametrize("base", BASES)
def test_bases_are_float32_under_autocast(base, pair):
    expected = Sensor(CAVE).start(base, pair)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        start = Sensor(CAVE).start(base, pair)
    for one, other in zip(start, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("consistency", ["msi", "both"])
def test_projected_outputs_meet_the_inputs_and_pass_gradients(name, consistency, pair):
    config = replace(SMALL[name], consistency=consistency)
    model = network(config)
    fused = model(*pair.inputs())
    torch.testing.assert_close(RESPONSE(fused), pair.msi_BMHW, rtol=0, atol=1e-5)
    rest = (spatial(CAVE)(fused) - pair.lr_hsi_BShw).abs().max()
    assert (rest < 1e-5) == (consistency == "both")
    free = network(replace(config, consistency="none"))(*pair.inputs())
    assert (RESPONSE(free) - pair.msi_BMHW).abs().max() > 1e-3
    expected = project(free, pair, CAVE, consistency, NM)
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-6)
    (fused - pair.reference_BSHW).square().mean().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        coarse = model(*pair.inputs())
    torch.testing.assert_close(RESPONSE(coarse), pair.msi_BMHW, rtol=0, atol=1e-5)


def test_patches_ignore_lr_pixels_that_see_beyond_them(pair):
    protocol = PROTOCOLS["yokoya_x4"]
    model = network(replace(NARROW, consistency="both"), protocol)
    inputs = simulate(pair.reference_BSHW, NM, protocol).inputs()
    training, whole = model(*inputs), model.eval()(*inputs)
    rest = [(spatial(protocol)(x) - inputs[2]).abs() for x in (training, whole)]
    assert rest[1].max() < 1e-5
    assert rest[0][..., 2:-2, 2:-2].max() < 1e-5
    assert rest[0].max() > 1e-3


def test_a_network_in_use_does_not_know_that_its_sensor_changed(pair):
    config = replace(NARROW, base="local", consistency="both", shown=None, zero_start=True)
    other = replace(PROTOCOLS["yokoya_x4"], srf="nikon_d700_nssr_norm")
    inputs = simulate(pair.reference_BSHW, NM, other)
    base = base_of("local", inputs)
    expected = project(base, inputs, CAVE, "both", NM)
    torch.testing.assert_close(network(config).eval()(*inputs.inputs()), expected)


@pytest.mark.parametrize("name", MODELS)
def test_weights_carry_the_sensor(name, pair, tmp_path):
    config = replace(SMALL[name], base="local", shown=None, consistency="both")
    model, path = network(config), tmp_path / "best.safetensors"
    save_weights(path, model.state_dict(), config, {}, model.sensor)
    loaded = load_model(path)
    assert loaded.config == config
    assert loaded.sensor == model.sensor
    # The response's own file may be missing where the network is used.
    loaded.sensor = replace(loaded.sensor, protocol=replace(CAVE, srf="/nowhere/srf.csv"))
    assert torch.equal(fuse(loaded, pair), fuse(model, pair))
    save_weights(path, model.state_dict(), config, {})
    with pytest.raises(UserError, match="of another version of the network"):
        load_model(path)


def test_plain_networks_have_files_as_before(tmp_path):
    model = build(NARROW)
    save_weights(tmp_path / "w", model.state_dict(), NARROW, {}, model.sensor)
    with safe_open(tmp_path / "w", "pt") as file:
        header = file.metadata()
    assert set(header) == {"config", "notes"}
    assert not {"base", "shown", "consistency", "residual_scale"} & set(
        json.loads(header["config"])
    )
    # Files of earlier versions state none of these fields.
    save_file(model.state_dict(), tmp_path / "w", metadata=header)
    assert load_model(tmp_path / "w").config == NARROW


def test_defaults_are_not_stated_and_what_is_shown_is_wherever_it_could_differ():
    own = {"base", "consistency", "shown", "residual_scale", "zero_start"}
    assert not own & set(stated(NARROW))
    for shown in ("image", "difference"):
        config = replace(NARROW, base="local", shown=shown)
        assert own & set(stated(config)) == {"base", "shown"}
        assert type(config)(**stated(config)) == config
    assert stated(replace(NARROW, base="local", shown=None))["shown"] == "difference"
    assert stated(replace(NARROW, base="aligned", shown=None))["shown"] == "image"


@pytest.mark.parametrize("base", ["lms", "aligned"])
def test_a_difference_that_is_none_is_refused(base):
    with pytest.raises(UserError, match=r"model\.shown: found 'difference', expected image"):
        replace(NARROW, base=base, shown="difference")


def test_what_a_base_rules_out_is_named():
    with pytest.raises(UserError, match=r"model\.zero_start: found True, expected false"):
        replace(SMALL["ssrnet"], zero_start=True)
    with pytest.raises(UserError, match=r"memory_mib: found 500, expected none.*model\.base"):
        build(replace(NARROW, base="local", shown=None), memory_mib=500)
    measured = PROTOCOLS["paris_x4"]
    assert sensor_of(replace(NARROW, base="gsa", shown=None), measured, None) == Sensor(measured)
    assert sensor_of(NARROW, measured, None) is None
    for protocol in (measured, CAVE):
        with pytest.raises(UserError, match=r"model\.consistency: found 'msi', expected none"):
            sensor_of(replace(NARROW, consistency="msi"), protocol, None)


def test_another_ratio_than_the_sensor_has_is_named(pair):
    model = network(replace(NARROW, base="local", shown=None))
    msi, lms, lr_hsi = pair.inputs()
    with pytest.raises(UserError, match=r"knows its sensor: found HR size .*expected HR = 4 x LR"):
        model(msi, lms, lr_hsi[..., ::2, ::2])


@pytest.mark.parametrize(
    "changes",
    [{"base": "gsa"}, {"base": "local"}, {"consistency": "both"}, {}, {"base": "aligned"}],
)
def test_networks_that_need_whole_images_refuse_gaps_that_were_filled_apart(changes, pair):
    model = network(replace(NARROW, **changes, shown=None))
    valid_HW = np.ones((32, 48), bool)
    valid_HW[:4, :4] = False
    image = NamedInputs("a", pair, NM, msi_valid_HW=valid_HW)
    assert by_network(model)(image).shape == (31, 32, 48)
    apart = replace(image, filled_apart=True)
    if set(changes.values()) & {"gsa", "local", "both"}:
        with pytest.raises(UserError, match=r"a: found pixels without data, expected none for a"):
            by_network(model)(apart)
    else:
        assert torch.equal(by_network(model)(apart), by_network(model)(image))
    whole = replace(apart, msi_valid_HW=None)
    assert torch.equal(by_network(model)(whole), by_network(model)(image))
