"""Weights files that are not what a run kept."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from networks import NARROW
from safetensors.torch import save_file

from feinfn.errors import UserError
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.weights import load_model

CONFIG = replace(NARROW, hsi_bands=4, msi_bands=2)
UNREADABLE = "cannot be read as weights of a network"
OTHER = "configuration or tensors are of another version"


@pytest.fixture
def load(tmp_path):
    """Return a function that loads a file of these tensors and this configuration."""
    tensors = {k: v.clone() for k, v in FeINFN(CONFIG).state_dict().items()}

    def load(config=None, change=None):
        text = config if isinstance(config, str) else json.dumps(asdict(CONFIG) | (config or {}))
        made = (change or dict)(tensors)
        path = tmp_path / "best.safetensors"
        save_file(made, path, metadata={"config": text})
        return load_model(path), made

    return load


def test_loaded_network_is_the_kept_one(load):
    model, made = load()
    assert model.config == CONFIG
    assert not model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, made[name])


@pytest.mark.parametrize("text", ["[]", "1", "null", '"x"', "{", "", "[" * 100_000])
def test_configuration_that_is_no_object(text, load):
    with pytest.raises(UserError, match=rf"best\.safetensors: {UNREADABLE}"):
        load(text)


@pytest.mark.parametrize(
    "config",
    [
        {"name": "unknown"},
        {"name": {}},
        {"unknown": 1},
        {"hsi_bands": 0},
        {"hsi_bands": 5},
        {"hsi_bands": 4.5},
        {"mlp_widths": 8},
        {"activation": "unknown"},
        {"border": "unknown"},
        {"inverse": "unknown"},
    ],
    ids=str,
)
def test_configuration_of_another_network(config, load):
    with pytest.raises(UserError, match=rf"best\.safetensors: .*{OTHER}"):
        load(config)


CHANGES = {
    "missing": lambda x: dict(list(x.items())[1:]),
    "extra": lambda x: x | {"extra": torch.zeros(1)},
    "shape": lambda x: x | {"spatial_encoder.head.bias": torch.zeros(5)},
    "type": lambda x: {k: v.half() for k, v in x.items()},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_tensors_of_another_network(change, load):
    with pytest.raises(UserError, match=rf"best\.safetensors: .*{OTHER}"):
        load(change=change)
