"""Whole-image fusion and evaluation."""

import torch
from torch import Tensor, nn

from feinfn.metrics import evaluate
from feinfn.protocols import Pair


@torch.inference_mode()
def fuse(model: nn.Module, pair: Pair) -> Tensor:
    """Return the fused HSI [B, S, H, W], clipped to [0, 1], in evaluation mode."""
    was_training = model.training
    model.eval()
    fused = model(*pair.inputs()).clamp(0, 1)
    model.train(was_training)
    return fused


def evaluate_pair(model: nn.Module, pair: Pair, ratio: int) -> dict[str, float]:
    """Return the metrics of the fused image of a batch of one."""
    return evaluate(fuse(model, pair)[0], pair.reference_BSHW[0], ratio)
