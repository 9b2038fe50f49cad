"""Whole-image fusion and evaluation."""

from torch import nn

from feinfn.methods.network import fuse
from feinfn.metrics.evaluation import evaluate
from feinfn.protocols.simulate import Pair


def evaluate_pair(model: nn.Module, pair: Pair, ratio: int) -> dict[str, float]:
    """Return the metrics of the fused image of a batch of one."""
    return evaluate(fuse(model, pair)[0], pair.reference_BSHW[0], ratio)
