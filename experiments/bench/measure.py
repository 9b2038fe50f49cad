"""Measurements that benches share: random images, times in turns, rates and floors of a machine."""

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from feinfn.config import ModelConfig
from feinfn.methods.cost import costs
from feinfn.methods.feinfn.model import FeINFN


def inputs(batch: int, size: int, ratio: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return MSI, upsampled LR-HSI, LR-HSI and reference [B, C, H, W] of random reflectances."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, size), (31, size), (31, size // ratio), (31, size)]
    made = [torch.rand(batch, c, n, n, generator=generator) for c, n in shapes]
    return tuple(x.to(device) for x in made)


def sync(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def in_turns(
    steps: dict[str, Callable[[], object]],
    rounds: int,
    device: torch.device,
    pick: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Return the seconds of each step, measured in turns: what `pick` makes of all rounds."""
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for i in range(rounds + 1):
        for kind, step in steps.items():
            sync(device)
            started = time.perf_counter()
            step()
            sync(device)
            if i:  # The first round warms up.
                times[kind].append(time.perf_counter() - started)
    return {kind: pick(values) for kind, values in times.items()}


def rates(device: torch.device, half: bool) -> dict[str, float]:
    """Return the best GFLOP/s of the network's most frequent shapes, and GB/s of a copy.

    The best, and not the median, because floors are made of them.
    """
    found = {}
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    for name, dtype in types.items() if half else [("float32", torch.float32)]:
        image = torch.rand(4, 128, 64, 64, device=device, dtype=dtype)
        image = image.contiguous(memory_format=torch.channels_last)
        kernel = torch.rand(128, 128, 3, 3, device=device, dtype=dtype)
        rows = torch.rand(16384, 256, device=device, dtype=dtype)
        matrix = torch.rand(256, 128, device=device, dtype=dtype)
        steps: dict[str, Callable[[], object]] = {
            "convolution": partial(nn.functional.conv2d, image, kernel, padding=1),
            "product": partial(torch.mm, rows, matrix),
        }
        seconds = in_turns(steps, 30, device, min)
        flop = {"convolution": 2 * 16384 * 9 * 128 * 128, "product": 2 * 16384 * 256 * 128}
        for kind, value in seconds.items():
            found[f"{kind} {name} GFLOP/s"] = flop[kind] / value / 1e9
    large = torch.rand(2**26, device=device)
    other = torch.empty_like(large)
    (copy_s,) = in_turns({"copy": partial(other.copy_, large)}, 5, device, min).values()
    found["copy GB/s"] = 2 * large.nbytes / copy_s / 1e9
    return found


def floors(rate: dict[str, float], half: bool) -> dict[str, float]:
    """Return floors of a x4 training step in seconds, at the measured rates of this machine.

    By operations: three forward passes (the backward pass counts twice) of products and
    convolutions. By bytes: every output of a convolution is written, read by the next layer and by
    the backward pass, and its gradient is written and read; what runs in strips is left out.
    """
    by_module = {cost.module: cost.flop_per_pixel * 16384 / 1e9 for cost in costs(ModelConfig(), 4)}
    encoders = by_module["FeINFN.spatial_encoder"] + by_module["FeINFN.spectral_encoder"]
    products = by_module["FeINFN"] - encoders
    fourier = by_module["FeINFN.fourier_fusion"]
    found = {
        "floor of operations, float32, s": 3
        * (
            encoders / rate["convolution float32 GFLOP/s"]
            + products / rate["product float32 GFLOP/s"]
        )
    }
    if half:
        # The Fourier branch stays in float32.
        found["floor of operations, bfloat16, s"] = 3 * (
            encoders / rate["convolution bfloat16 GFLOP/s"]
            + (products - fourier) / rate["product bfloat16 GFLOP/s"]
            + fourier / rate["product float32 GFLOP/s"]
        )
    written = 0

    def count(module: nn.Module, given: object, output: Tensor) -> None:
        nonlocal written
        written += output.nbytes

    model = FeINFN(ModelConfig())
    for encoder in (model.spatial_encoder, model.spectral_encoder):
        for module in encoder.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(count)
    *data, _ = inputs(4, 64, 4, torch.device("cpu"))
    with torch.no_grad():
        model(*data)
    found["floor of bytes, float32, s"] = 5 * written / rate["copy GB/s"] / 1e9
    return found
