"""Reference values of the released network and metric package."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from feinfn.config import ModelConfig
from feinfn.model import FeINFN
from feinfn.released import load_released_state_dict

GOLDENS = Path(__file__).parent / "goldens"
SMALL = ModelConfig(feat_dim=32, guide_dim=32, mlp_widths=(64, 32))


def arrays(name: str) -> dict[str, np.ndarray]:
    """Return the arrays of one golden file."""
    with np.load(GOLDENS / f"{name}.npz") as file:
        return dict(file)


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    return json.loads((GOLDENS / "model.json").read_text())


@pytest.fixture(scope="session")
def released_weights() -> dict[str, torch.Tensor]:
    return {k: torch.from_numpy(v) for k, v in arrays("weights_small32").items()}


@pytest.fixture
def released_model(released_weights: dict[str, torch.Tensor]) -> FeINFN:
    model = FeINFN(SMALL)
    load_released_state_dict(model, released_weights)
    return model
