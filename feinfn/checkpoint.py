"""Files that survive a crash: written beside their target, then renamed over it."""

import errno
import json
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from feinfn.config import ModelConfig
from feinfn.errors import UserError


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file through a temporary one in its folder; nothing half-written is left behind.

    Raises `UserError` where the disk is full or the folder is not writable.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch and safetensors report a full disk as errors of their own, without errno.
        number = getattr(error, "errno", None)
        if number in (errno.ENOSPC, errno.EDQUOT) or "space left" in str(error):
            raise UserError(
                f"{path}: no space left on the disk; free some or choose another place"
            ) from None
        if isinstance(error, OSError):
            raise UserError(f"{path}: cannot be written ({error})") from None
        raise
    finally:
        with suppress(OSError):
            partial.unlink()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Save tensors and plain scalars, loadable with `weights_only=True`."""
    write_atomic(path, lambda p: torch.save(state, p))


def load_state(path: Path, device: torch.device) -> dict[str, Any]:
    """Load what `save_state` wrote."""
    return torch.load(path, map_location=device, weights_only=True)


def save_weights(
    path: Path, weights: dict[str, Tensor], config: ModelConfig, notes: dict[str, Any]
) -> None:
    """Save weights as safetensors, with the model's configuration and notes in the header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    header = {"config": json.dumps(asdict(config)), "notes": json.dumps(notes)}
    write_atomic(path, lambda p: save_file(tensors, p, metadata=header))
