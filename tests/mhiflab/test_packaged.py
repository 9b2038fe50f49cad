"""A finished network as an MLflow model."""

import json
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
import torch
from mlflow_server import ModelServer
from networks import NARROW

from feinfn.errors import UserError
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.network import fuse
from feinfn.methods.weights import save_weights
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import Inputs, upsample
from mhiflab.packaged import save_packaged

CONFIG = replace(NARROW, decoder_layers=1)


@pytest.fixture
def model():
    torch.manual_seed(3)
    return FeINFN(CONFIG).eval()


@pytest.fixture
def folder(model, tmp_path, monkeypatch):
    # Nothing may be written where the process happens to run.
    monkeypatch.chdir(tmp_path)
    weights = tmp_path / "weights.safetensors"
    save_weights(weights, model.state_dict(), CONFIG, {})
    save_packaged(tmp_path / "model", weights, CONFIG, PROTOCOLS["cave_x4"], {"run_key": "k"})
    assert {p.name for p in tmp_path.iterdir()} == {"weights.safetensors", "model"}
    return tmp_path / "model"


@pytest.mark.parametrize(("batch", "rows", "columns"), [(1, 8, 8), (2, 5, 9)])
def test_loaded_model_equals_inference_bit_for_bit(model, folder, batch, rows, columns):
    from mlflow import pyfunc

    torch.set_num_threads(1)
    draw = np.random.default_rng(0)
    hsi = draw.random((batch, 31, rows, columns), np.float32)
    msi = draw.random((batch, 3, 4 * rows, 4 * columns), np.float32)
    given = {"hsi": hsi, "msi": msi}
    found = pyfunc.load_model(str(folder)).predict(given)
    lr, hr = torch.from_numpy(hsi), torch.from_numpy(msi)
    expected = fuse(model, Inputs(hr, upsample(lr, PROTOCOLS["cave_x4"]), lr))
    assert found.dtype == np.float32
    assert np.array_equal(found, expected.numpy())


def test_model_folder_names_its_inputs_and_pins_what_it_needs(folder):
    from mlflow.models import Model

    described = Model.load(str(folder))
    assert described.signature.inputs.input_names() == ["hsi", "msi"]
    assert described.metadata == {"run_key": "k"}
    assert not list(folder.rglob("*.pkl"))
    required = (folder / "requirements.txt").read_text().split()
    assert all("==" in line for line in required)
    assert any(line.startswith("torch==") for line in required)


def test_a_server_answers_the_example_in_the_folder(folder):
    from mlflow import pyfunc
    from mlflow.models import Model

    server = ModelServer(folder.parent)
    server.start()
    try:
        request = urllib.request.Request(
            f"{server.uri}/invocations",
            (folder / "serving_input_example.json").read_bytes(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            found = json.load(reply)["predictions"]
    finally:
        server.kill()
    given = Model.load(str(folder)).load_input_example(str(folder))
    expected = pyfunc.load_model(str(folder)).predict(given)
    np.testing.assert_allclose(np.array(found, np.float32), expected, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("ratio", [4, 8])
def test_the_example_in_the_folder_is_a_request_that_is_answered(model, tmp_path, ratio):
    from mlflow import pyfunc
    from mlflow.models import Model

    weights = tmp_path / "weights.safetensors"
    save_weights(weights, model.state_dict(), CONFIG, {})
    folder = tmp_path / "model"
    save_packaged(folder, weights, CONFIG, PROTOCOLS[f"cave_x{ratio}"], {})
    given = Model.load(str(folder)).load_input_example(str(folder))
    assert given["msi"].shape == (1, 3, 2 * ratio, 2 * ratio)
    found = pyfunc.load_model(str(folder)).predict(given)
    assert found.shape == (1, 31, 2 * ratio, 2 * ratio)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("name", ["hsi", "msi"])
@pytest.mark.parametrize(("factor", "found"), [(255, "0 to 255"), (np.nan, "nan to nan")])
def test_values_of_other_units_are_refused(name, factor, found, folder):
    from mlflow import pyfunc

    given = {"hsi": np.ones((1, 31, 2, 2), np.float32), "msi": np.ones((1, 3, 8, 8), np.float32)}
    given[name][0, 0] = 0
    given[name] *= np.float32(factor)
    message = rf"{name}: found values from {found}, expected \[0, 1\]; divide by the number"
    with pytest.raises(UserError, match=message):
        pyfunc.load_model(str(folder)).predict(given)


def test_sizes_that_do_not_belong_together_are_refused(folder):
    from mlflow import pyfunc

    model = pyfunc.load_model(str(folder))
    given = {
        "hsi": np.zeros((1, 31, 8, 8), np.float32),
        "msi": np.zeros((1, 3, 33, 32), np.float32),
    }
    with pytest.raises(UserError, match="hsi and msi"):
        model.predict(given)
