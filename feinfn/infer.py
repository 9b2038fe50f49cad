"""Whole-image fusion and evaluation."""

import json
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from feinfn.errors import UserError
from feinfn.metrics.evaluation import evaluate
from feinfn.model import Network
from feinfn.models import FEINFN, MODELS, build
from feinfn.protocols.simulate import Inputs, Pair

LONGEST = 200
"""Characters of an error's text; torch lists every tensor that does not fit."""


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
        if not isinstance(described, dict):
            raise TypeError(f"found config {described!r}, expected an object")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read as weights of a network ({error!r}); expected a .safetensors "
            "file that a run has kept"
        ) from None
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in described.items()
    }
    try:
        config = MODELS[fields.get("name", FEINFN)].config(**fields)
        for name, kind in get_type_hints(type(config)).items():
            # What a newer version may choose would here be taken for something else.
            if get_origin(kind) is Literal and getattr(config, name) not in get_args(kind):
                raise ValueError(f"{name} is {getattr(config, name)!r}, not of {get_args(kind)}")
        model = build(config).to(device)
        tensors, expected = load_file(path, device=str(device)), model.state_dict()
        for name, tensor in tensors.items():
            # Loading would round or widen them without a word.
            if name in expected and tensor.dtype != expected[name].dtype:
                raise TypeError(f"{name} is {tensor.dtype}, not {expected[name].dtype}")
        model.load_state_dict(tensors)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise UserError(
            f"{path}: its configuration or tensors are of another version of the network "
            f"({type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}); use the version "
            "that made it"
        ) from None
    return model.eval()
