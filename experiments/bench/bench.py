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
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from experiments.bench.measure import floors, in_turns, inputs, rates
from feinfn.config import PRESETS, ModelConfig, TrainConfig
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


def peak_mib(case: str, kind: str) -> float:
    """Return the peak memory above that at rest in MiB, measured in a new process."""
    words = [sys.executable, __file__, "--peak", case, kind]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def high_water_mib() -> float:
    """Return this process's peak resident memory in MiB; ru_maxrss would start at the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def print_peak(case: str, kind: str, device: torch.device) -> None:
    """Print the peak memory of two steps in MiB, or of one image of 512x512, which takes long."""
    step = CASES[case](kind, device)
    rest = high_water_mib()
    for _ in range(1 if case == "forward 512" else 2):
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
    """Run all cases, print each, and write JSON named by the hardware."""
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
        rounds = 5 if case.startswith("train") else 1 if case == "forward 512" else 3
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
    say("Time of a training step with a field of `described`, relative to `released`:")
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
            gap = "" if kind in seconds else " " * 26
            words += f"{gap} {memory[kind]:8.0f} MiB {memory[kind] / memory[PLAIN]:6.2f}x"
        say(words)


def print_values(values: dict[str, float]) -> None:
    """Print numbers below their titles."""
    for name, value in values.items():
        say(f"  {name:<40} {value:10.3f}")


if __name__ == "__main__":
    main()
