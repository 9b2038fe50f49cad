"""The released network on its reference weights."""

import json
from typing import Any

import pytest
import torch
from device import DEVICE, PROCESSOR_ONLY
from reference import GOLDENS, SMALL, arrays

from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.feinfn.released import load_released_state_dict


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what only a processor can show, if the tests run on another device."""
    for item in items:
        reason = PROCESSOR_ONLY.get(getattr(item, "originalname", ""))
        if reason and DEVICE.type != "cpu":
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True, scope="session")
def whole_float32() -> None:
    """Compute float32 in float32: by default, convolutions on a GPU round to TF32."""
    torch.backends.cudnn.allow_tf32 = False


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
    return model.to(DEVICE)
