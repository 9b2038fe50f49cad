"""Weights files: safetensors that carry the model's configuration in their header."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from feinfn.errors import UserError
from feinfn.files import DamagedError, write_atomic
from feinfn.methods.configs import FEINFN
from feinfn.methods.network import Network
from feinfn.methods.registry import MODELS, build
from feinfn.methods.sensor import Sensor
from feinfn.physics import stated

LONGEST = 200
"""Longest error text in characters; torch lists every tensor that does not fit."""


def load_model(
    path: Path, device: torch.device | str = "cpu", memory_mib: float | None = None
) -> Network:
    """Return the network of a weights file that training saved, in evaluation mode.

    The file (safetensors) carries its configuration; `memory_mib` is that of `build`. Raises
    `UserError` for any other file, and for a budget that the network cannot keep.
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
        stored_config = json.loads(header["config"])
        if not isinstance(stored_config, dict):
            raise TypeError(f"found config {stored_config!r}, expected an object")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise UserError(
            f"{path}: cannot be read as weights of a network ({error!r}); expected a .safetensors "
            "file that a run has kept"
        ) from None
    fields: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in stored_config.items()
    }
    try:
        config = MODELS[fields.get("name", FEINFN)].config_type(**fields)
        sensor = Sensor.from_text(header["sensor"]) if config.needs_sensor else None
        model = build(config, memory_mib, sensor=sensor).to(device)
        tensors, expected = load_file(path, device=str(device)), model.state_dict()
        for name, tensor in tensors.items():
            # Loading would silently round or widen them.
            if name in expected and tensor.dtype != expected[name].dtype:
                raise TypeError(f"{name} is {tensor.dtype}, not {expected[name].dtype}")
        model.load_state_dict(tensors)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RuntimeError) as error:
        if getattr(error, "field", "") == "memory_mib":
            raise
        raise UserError(
            f"{path}: its configuration or tensors are of another version of the network "
            f"({type(error).__name__}: {' '.join(str(error).split())[:LONGEST]}); use the version "
            "that made it"
        ) from None
    return model.eval()


def _header(config: Any, notes: dict[str, Any], sensor: Sensor | None) -> dict[str, str]:
    texts = {"config": json.dumps(stated(config)), "notes": json.dumps(notes)}
    return texts if sensor is None else texts | {"sensor": sensor.text()}


def save_weights(
    path: Path,
    weights: dict[str, Tensor],
    config: Any,
    notes: dict[str, Any],
    sensor: Sensor | None = None,
) -> None:
    """Save weights as safetensors; configuration, notes and any sensor stand in the header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    header = _header(config, notes, sensor)
    write_atomic(path, lambda p: save_file(tensors, p, metadata=header))


def check_weights(
    path: Path,
    weights: dict[str, Tensor],
    config: Any,
    notes: dict[str, Any],
    sensor: Sensor | None = None,
) -> bool:
    """Return True if a file holds these weights, False if it holds others with other notes.

    Raises `DamagedError` if it is missing, cannot be read, or differs under the same notes.
    """
    try:
        with safe_open(path, "pt") as file:
            if file.metadata() != _header(config, notes, sensor):
                return False
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"cannot be read ({error})") from None
    if stored.keys() != weights.keys() or any(
        not torch.equal(tensor, weights[name]) for name, tensor in stored.items()
    ):
        raise DamagedError("holds other weights than were written")
    return True
