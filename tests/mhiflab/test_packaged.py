"""A finished network as an MLflow model."""

import numpy as np
import pytest
import torch

from feinfn.checkpoint import save_weights
from feinfn.config import ModelConfig
from feinfn.errors import UserError
from feinfn.infer import fuse
from feinfn.model import FeINFN
from feinfn.protocols import PROTOCOLS, Inputs, upsample
from mhiflab.packaged import save_packaged

CONFIG = ModelConfig(
    feat_dim=4,
    guide_dim=4,
    spatial_blocks=1,
    spectral_blocks=1,
    mlp_widths=(8,),
    decoder_width=8,
    decoder_layers=1,
)


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


def test_sizes_that_do_not_belong_together_are_refused(folder):
    from mlflow import pyfunc

    model = pyfunc.load_model(str(folder))
    given = {
        "hsi": np.zeros((1, 31, 8, 8), np.float32),
        "msi": np.zeros((1, 3, 33, 32), np.float32),
    }
    with pytest.raises(UserError, match="hsi and msi"):
        model.predict(given)
