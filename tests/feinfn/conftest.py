"""The released network on its reference weights."""

import json
from typing import Any

import pytest
import torch
from reference import GOLDENS, SMALL, arrays

from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.feinfn.released import load_released_state_dict


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
