"""Whole-image fusion and evaluation."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from feinfn.errors import UserError
from feinfn.metrics import evaluate
from feinfn.model import Network
from feinfn.models import FEINFN, MODELS, build
from feinfn.protocols import Inputs, Pair


@torch.inference_mode()
def fuse(model: nn.Module, pair: Inputs) -> Tensor:
    """Return the fused HSI [B, S, H, W], clipped to [0, 1], in evaluation mode."""
    was_training = model.training
    model.eval()
    fused = model(*pair.inputs()).clamp(0, 1)
    model.train(was_training)
    return fused


def evaluate_pair(model: nn.Module, pair: Pair, ratio: int) -> dict[str, float]:
    """Return the metrics of the fused image of a batch of one."""
    return evaluate(fuse(model, pair)[0], pair.reference_BSHW[0], ratio)


def load_model(path: Path, device: torch.device | str = "cpu") -> Network:
    """Return the network of a weights file that training kept, in evaluation mode.

    The file (safetensors) carries its configuration. Raises `UserError` for any other file.
    """
    try:
        with safe_open(path, "pt") as file:
            described = json.loads((file.metadata() or {})["config"])
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path}: cannot be read as weights of a network ({error!r}); expected a .safetensors "
            "file that a run has kept"
        ) from None
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in described.items()
    }
    try:
        model = build(MODELS[fields.get("name", FEINFN)].config(**fields)).to(device)
        model.load_state_dict(load_file(path, device=str(device)))
    except (KeyError, TypeError, RuntimeError) as error:
        raise UserError(
            f"{path}: its configuration or tensors are of another version of the network "
            f"({str(error).splitlines()[0]}); use the version that made it"
        ) from None
    return model.eval()
