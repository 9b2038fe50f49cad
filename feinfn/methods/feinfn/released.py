"""Released checkpoints: names of their parameters, and their unused tensors."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from feinfn.config import ModelConfig
from feinfn.errors import UserError
from feinfn.methods.feinfn.geometry import raster_table
from feinfn.methods.feinfn.model import HIGH_PASS, FeINFN

_ENCODER = r"(spatial_encoder|spectral_encoder)"

# 2x: released layers stand in a list with activations in between, where layer i has number 2 i.
_RULES = [
    (rf"{_ENCODER}\.head\.(\w+)", r"\1.head.0.\2"),
    (rf"{_ENCODER}\.blocks\.(\d+)\.conv1\.(\w+)", r"\1.body.\2.body.0.\3"),
    (rf"{_ENCODER}\.blocks\.(\d+)\.conv2\.(\w+)", r"\1.body.\2.body.2.\3"),
    (r"spatial_fusion\.mlp\.layers\.(\d+)\.(\w+)", r"imnet.layers.2x\1.\2"),
    (r"fourier_fusion\.amplitude\.layers\.(\d+)\.(\w+)", r"freq_query.imnet1.layers.2x\1.\2"),
    (r"fourier_fusion\.phase\.stages\.(\d+)\.pointwise\.", r"freq_query.imnet2.layers.2x\1.0."),
    (r"fourier_fusion\.phase\.stages\.(\d+)\.depthwise\.", r"freq_query.imnet2.layers.2x\1.1."),
    (r"decoder\.k\.(\d+)\.(\w+)", r"decoder.K.\1.0.\2"),
    (r"decoder\.q\.(\d+)\.(\w+)", r"decoder.Q.\1.0.\2"),
    (r"decoder\.filters\.(\d+)\.(\w+)", r"decoder.Q.\1.1.\2"),
    (r"decoder\.last\.(\w+)", r"decoder.last_layer.\1"),
]

_MEAN_RGB = (0.4488, 0.4371, 0.4040)


def released_name(name: str, config: ModelConfig) -> str:
    """Return the released network's name for one of our parameters."""
    if match := re.fullmatch(rf"{_ENCODER}\.tail\.(\w+)", name):
        encoder, leaf = match.groups()
        blocks = config.spatial_blocks if encoder == "spatial_encoder" else config.spectral_blocks
        return f"{encoder}.body.{blocks}.{leaf}"
    for pattern, replacement in _RULES:
        if re.match(pattern, name):
            released = re.sub(pattern, replacement, name)
            return re.sub(r"2x(\d+)", lambda m: str(2 * int(m[1])), released)
    raise AssertionError(f"no released name for {name}")


def unused_released_tensors() -> dict[str, Tensor]:
    """Return the unused tensors of released checkpoints: MeanShift layers and buffers."""
    tensors: dict[str, Tensor] = {}
    for encoder in ("spatial_encoder", "spectral_encoder"):
        for shift, sign in (("sub_mean", -1.0), ("add_mean", 1.0)):
            tensors[f"{encoder}.{shift}.weight"] = torch.eye(3).view(3, 3, 1, 1)
            tensors[f"{encoder}.{shift}.bias"] = sign * torch.tensor(_MEAN_RGB)
    tensors["pe.pe"] = raster_table().T.contiguous()
    tensors["hp.kernel"] = torch.tensor(HIGH_PASS["released"])
    return tensors


def load_released_state_dict(model: FeINFN, state: Mapping[str, Tensor]) -> None:
    """Load a released state dict by name into a model of the same sizes.

    Raises `UserError` that names tensors that are missing, unknown or of another shape.
    """
    tensors = model.state_dict()
    names = {released_name(name, model.config): name for name in tensors}
    unused = unused_released_tensors()
    missing = sorted(set(names) - set(state))
    unknown = sorted(set(state) - set(names) - set(unused))
    wrong = sorted(r for r, n in names.items() if r in state and state[r].shape != tensors[n].shape)
    problems = {"missing": missing, "unknown": unknown, "of another shape": wrong}
    for problem, affected in problems.items():
        if affected:
            raise UserError(
                f"released state dict: {len(affected)} tensors {problem}, first {affected[0]!r}; "
                f"expected the tensors of {model.config}"
            )
    model.load_state_dict({n: state[r] for r, n in names.items()})


def released_state_dict(model: FeINFN) -> dict[str, Tensor]:
    """Return the model's weights under released names, with the unused tensors.

    The released network can load them.
    """
    weights = {released_name(n, model.config): t for n, t in model.state_dict().items()}
    return {**unused_released_tensors(), **weights}
