"""Processors on which training in bfloat16 is worth it."""

import torch

from feinfn.config import TrainConfig
from feinfn.errors import require


def native_bfloat16() -> bool:
    """Return True if this machine's CPU multiplies bfloat16 numbers itself.

    Others emulate it, at 9 times the time of float32 for a step of the released network (an AVX2
    processor, full width).
    """
    capabilities = torch.cpu.get_capabilities()
    if capabilities["architecture"] == "x86_64":
        return capabilities["avx512_bf16"] or capabilities["amx_bf16"]
    # An architecture without this entry does not say.
    return capabilities.get("bf16", True)


def check_precision(config: TrainConfig, device: torch.device) -> None:
    """Raise `UserError` for a training in bfloat16 on a CPU that would emulate it."""
    emulated = config.precision == "bfloat16" and device.type == "cpu" and not native_bfloat16()
    expected = (
        "float32, because this machine's CPU has no products of bfloat16 (on x86, AVX512_BF16 or "
        "AMX) and emulates them many times slower; train on another node, or set it to float32"
    )
    require(not emulated, "train.precision", config.precision, expected)
