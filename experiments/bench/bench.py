"""Measure FeINFN against its readable reference: time alternating in one process, memory apart.

python experiments/bench/bench.py            all, results in experiments/bench/results/
python experiments/bench/bench.py --quick    the training step at x4 only, nothing written

Every result is printed as it is measured. Products of bfloat16 are left out on a CPU that would
emulate them.
"""

import argparse
import json
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from feinfn.config import PRESETS, ModelConfig, TrainConfig
from feinfn.methods.cost import costs
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.feinfn.plain import PlainFeINFN, plain_loss
from feinfn.training.losses import training_loss
from feinfn.training.precision import native_bfloat16

RESULTS = Path(__file__).parent / "results"
PLAIN, OURS, HALF = "plain", "ours", "ours bf16"
EXACT, TF32 = "ours ieee", "ours tf32"
COMPILED, COMPILED_HALF = "compiled", "compiled bf16"
BUDGET, BUDGET_MIB = "ours, budget of 580 MiB", 580.0
EAGER, ON_GPU = (PLAIN, OURS, HALF), (EXACT, TF32, COMPILED, COMPILED_HALF)
"""Kinds of measurements. A budget is for memory only. TF32 is in no product (ieee) or in all; on a
GPU, PyTorch's default is in convolutions alone."""


def inputs(batch: int, size: int, ratio: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return MSI, upsampled LR-HSI, LR-HSI and reference [B, C, H, W] of random reflectances."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, size), (31, size), (31, size // ratio), (31, size)]
    made = [torch.rand(batch, c, n, n, generator=generator) for c, n in shapes]
    return tuple(x.to(device) for x in made)


def build(
    kind: str, device: torch.device, config: ModelConfig | None = None
) -> tuple[nn.Module, Callable[..., Tensor]]:
    """Return a network at full width and its loss."""
    torch.manual_seed(0)
    budget_mib = BUDGET_MIB if kind == BUDGET else None
    model = FeINFN(config or ModelConfig(), budget_mib).to(device)
    if kind == PLAIN:
        return PlainFeINFN(model), plain_loss
    network: nn.Module = model
    if kind in (COMPILED, COMPILED_HALF):
        # This mode records CUDA graphs.
        compiled = torch.compile(model, fullgraph=True, dynamic=False, mode="reduce-overhead")
        network = cast(nn.Module, compiled)
    return network, lambda a, b: training_loss(TrainConfig(), a, b)


def autocast(kind: str, device: torch.device) -> torch.autocast:
    """Return the autocast of a kind: bfloat16 for half precision, else off."""
    half = kind in (HALF, COMPILED_HALF)
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=half)


@contextmanager
def tf32(kind: str) -> Iterator[None]:
    """Round the products of a kind to TF32, or none of them."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    if kind in (EXACT, TF32):
        products.allow_tf32 = convolutions.allow_tf32 = kind == TF32
    try:
        yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def train_step(
    kind: str, ratio: int, device: torch.device, config: ModelConfig | None = None
) -> Callable[[], None]:
    """Return a function of one training step (forward, loss, backward, AdamW) on 4 x 64x64."""
    model, objective = build(kind, device, config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, fused=kind != PLAIN)
    *data, reference = inputs(4, 64, ratio, device)

    def step() -> None:
        with tf32(kind):
            with autocast(kind, device):
                fused = model(*data)
            objective(fused.float(), reference).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def forward(kind: str, size: int, device: torch.device) -> Callable[[], None]:
    """Return a function of one forward pass of a whole image at ratio 4."""
    model, _ = build(kind, device)
    *data, _ = inputs(1, size, 4, device)

    def step() -> None:
        with torch.inference_mode(), autocast(kind, device), tf32(kind):
            model(*data)

    return step


CASES: dict[str, Callable[[str, torch.device], Callable[[], None]]] = {
    "train x4": lambda kind, device: train_step(kind, 4, device),
    "train x8": lambda kind, device: train_step(kind, 8, device),
    **{
        f"forward {n}": (lambda kind, device, n=n: forward(kind, n, device))
        for n in (64, 128, 256, 512)
    },
}


def sync(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def in_turns(
    steps: dict[str, Callable[[], object]], rounds: int, device: torch.device
) -> dict[str, float]:
    """Return the median seconds of each step, measured in turns."""
    times: dict[str, list[float]] = {kind: [] for kind in steps}
    for i in range(rounds + 1):
        for kind, step in steps.items():
            sync(device)
            started = time.perf_counter()
            step()
            sync(device)
            if i:  # The first round warms up.
                times[kind].append(time.perf_counter() - started)
    return {kind: statistics.median(values) for kind, values in times.items()}


def measure(case: str, rounds: int, device: torch.device, kinds: Sequence[str]) -> dict[str, float]:
    """Return the median seconds of each kind of a case."""
    return in_turns({kind: CASES[case](kind, device) for kind in kinds}, rounds, device)


def field_costs(device: torch.device) -> dict[str, float]:
    """Return the time of a training step with each field of `described`, relative to `released`."""
    released, described = PRESETS["released"], PRESETS["described"]
    configs = {"released": released, "all of described": described}
    for one in fields(ModelConfig):
        value = getattr(described, one.name)
        if value != getattr(released, one.name):
            configs[f"{one.name}: {value}"] = replace(released, **{one.name: value})
    steps = {name: train_step(OURS, 4, device, config) for name, config in configs.items()}
    seconds = in_turns(steps, 3, device)
    return {name: value / seconds["released"] for name, value in seconds.items()}


def rates(device: torch.device, half: bool) -> dict[str, float]:
    """Return the measured GFLOP/s of the network's most frequent shapes, and GB/s of a copy."""
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
        seconds = in_turns(steps, 30, device)
        flop = {"convolution": 2 * 16384 * 9 * 128 * 128, "product": 2 * 16384 * 256 * 128}
        for kind, value in seconds.items():
            found[f"{kind} {name} GFLOP/s"] = flop[kind] / value / 1e9
    large = torch.rand(2**26, device=device)
    other = torch.empty_like(large)
    (copy_s,) = in_turns({"copy": partial(other.copy_, large)}, 5, device).values()
    found["copy GB/s"] = 2 * large.nbytes / copy_s / 1e9
    return found


def floors(rate: dict[str, float], half: bool) -> dict[str, float]:
    """Return floors of a x4 training step in seconds, at the measured rates of this machine.

    By operations: three forward passes (the backward pass counts twice) of products and
    convolutions. By bytes: every output of a convolution is written, read by the next layer and by
    the backward pass, and its gradient is written and read; what runs in strips stays in the cache.
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


def peak_mib(case: str, kind: str) -> float:
    """Return the peak memory above that at rest in MiB, measured in a new process."""
    words = [sys.executable, __file__, "--peak", case, kind]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def high_water_mib() -> float:
    """Return this process's peak resident memory in MiB; ru_maxrss would start at the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def print_peak(case: str, kind: str, device: torch.device) -> None:
    """Print the peak memory of three steps in MiB."""
    step = CASES[case](kind, device)
    rest = high_water_mib()
    for _ in range(3):
        step()
    if device.type == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        print(high_water_mib() - rest)


def say(line: str) -> None:
    """Print a line at once, also into a file."""
    print(line, flush=True)


def cpu_name() -> str:
    """Return the processor's name."""
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if "model name" in x] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def main() -> None:
    """Run all cases, print a table and write JSON named by the hardware."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "KIND"))
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.peak:
        print_peak(*options.peak, device)
        return
    hardware = torch.cuda.get_device_name() if device.type == "cuda" else cpu_name()
    hardware = f"{hardware}, {torch.get_num_threads()} threads"
    half = device.type == "cuda" or native_bfloat16()
    say(f"{hardware}, torch {torch.__version__}")
    if not half:
        say(f"{HALF}: left out, because this CPU would emulate products of bfloat16")
    kinds = [k for k in (*EAGER, *ON_GPU * (device.type == "cuda")) if half or k != HALF]
    rows = []
    for case in ["train x4"] if options.quick else CASES:
        rounds = 5 if case.startswith("train") else 2 if case == "forward 512" else 3
        seconds = measure(case, rounds, device, kinds)
        rest = [BUDGET] * (case == "forward 512" and device.type == "cpu")
        memory = {kind: peak_mib(case, kind) for kind in (PLAIN, OURS, *rest)}
        rows.append({"case": case, "seconds": seconds, "peak_mib": memory})
        print_case(case, seconds, memory)
    if options.quick:
        return
    about = {"hardware": hardware, "torch": torch.__version__, "python": sys.version.split()[0]}
    rate = rates(device, half)
    found = {**about, "cases": rows, "rates": rate | floors(rate, half)}
    print_values(found["rates"])
    say("Seconds of a training step with a field of `described`, relative to `released`:")
    found["fields"] = field_costs(device)
    print_values(found["fields"])
    RESULTS.mkdir(exist_ok=True)
    name = re.sub("[^a-z0-9]+", "-", hardware.lower()).strip("-")
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(found, indent=2) + "\n")
    say(f"Written to {path}")


def print_case(case: str, seconds: dict[str, float], memory: dict[str, float]) -> None:
    """Print a case's times and memory, and their ratios to the plain network."""
    for kind in dict.fromkeys([*seconds, *memory]):
        words = f"{case:<12} {kind:<24}"
        if kind in seconds:
            words += f" {seconds[kind]:8.3f} s {seconds[PLAIN] / seconds[kind]:6.2f}x faster"
        if kind in memory:
            gap = "" if kind in seconds else " " * 25
            words += f"{gap} {memory[kind]:8.0f} MiB {memory[kind] / memory[PLAIN]:6.2f}x"
        say(words)


def print_values(values: dict[str, float]) -> None:
    """Print numbers below their titles."""
    for name, value in values.items():
        say(f"  {name:<40} {value:10.3f}")


if __name__ == "__main__":
    main()
