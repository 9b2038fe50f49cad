"""The device on which the tests of numbers run: the processor, or the one that FEINFN_DEVICE names.

FEINFN_DEVICE=cuda python -m pytest tests/feinfn/methods tests/feinfn/training
"""

import os

import numpy as np
import torch

DEVICE = torch.device(os.environ.get("FEINFN_DEVICE", "cpu"))

PROCESSOR_ONLY = {
    "test_same_seed_is_bit_equal_and_threads_change_little": "counts a processor's threads",
    "test_the_least_budget_is_kept_at_full_width": "reads the memory of a process; `make gpu` "
    "measures that of a GPU",
}
"""Tests that say nothing about another device, and why."""

# CUDA reads it when it starts; without it, `one_order_of_sums` would refuse its products.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def one_order_of_sums() -> None:
    """Forbid sums whose order a GPU chooses and TF32, before states are compared bit for bit."""
    torch.use_deterministic_algorithms(DEVICE.type != "cpu")
    torch.backends.cudnn.allow_tf32 = False


def put(array: np.ndarray) -> torch.Tensor:
    """Return an array on the device."""
    return torch.from_numpy(array).to(DEVICE)
