"""Measure FeINFN against the plain transcription: time alternating in one process, memory apart.

python experiments/bench/bench.py            all, results in experiments/bench/results/
python experiments/bench/bench.py --quick    the training step at x4 only
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from feinfn.config import ModelConfig
from feinfn.losses import l1_ssim
from feinfn.model import FeINFN

sys.path.insert(0, str(Path(__file__).parent))
from plain import PlainFeINFN, plain_loss

RESULTS = Path(__file__).parent / "results"
PLAIN, OURS, HALF = "plain", "ours", "ours bf16"


def inputs(batch: int, size: int, ratio: int, device: torch.device) -> tuple[Tensor, ...]:
    """Return (MSI, LMS, LR-HSI, reference) of random reflectances."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, size), (31, size), (31, size // ratio), (31, size)]
    made = [torch.rand(batch, c, n, n, generator=generator) for c, n in shapes]
    return tuple(x.to(device) for x in made)


def build(kind: str, device: torch.device) -> tuple[nn.Module, Callable[..., Tensor]]:
    """Return a network at full width and its loss."""
    torch.manual_seed(0)
    model = FeINFN(ModelConfig()).to(device)
    if kind == PLAIN:
        return PlainFeINFN(model), plain_loss
    return model, lambda a, b: l1_ssim(a, b, 0.1)


def train_step(kind: str, ratio: int, device: torch.device) -> Callable[[], None]:
    """Return one training step: forward, loss, backward, AdamW; batch 4 of 64x64."""
    model, objective = build(kind, device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-4, fused=kind != PLAIN)
    *data, reference = inputs(4, 64, ratio, device)

    def step() -> None:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=kind == HALF):
            fused = model(*data)
        objective(fused.float(), reference).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def forward(kind: str, size: int, device: torch.device) -> Callable[[], None]:
    """Return one whole-image forward at ratio 4."""
    model, _ = build(kind, device)
    *data, _ = inputs(1, size, 4, device)

    def step() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=torch.bfloat16, enabled=kind == HALF),
        ):
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
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(case: str, rounds: int, device: torch.device) -> dict[str, float]:
    """Return the median seconds of each kind, measured in turns."""
    steps = {kind: CASES[case](kind, device) for kind in (PLAIN, OURS, HALF)}
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


def peak_mib(case: str, kind: str) -> float:
    """Return the peak memory above the resting process, measured in a process of its own."""
    words = [sys.executable, __file__, "--peak", case, kind]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def high_water_mib() -> float:
    """Return this process's peak resident memory; ru_maxrss would start at the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def print_peak(case: str, kind: str, device: torch.device) -> None:
    """Print the peak memory of three repetitions in MiB."""
    step = CASES[case](kind, device)
    rest = high_water_mib()
    for _ in range(3):
        step()
    if device.type == "cuda":
        print(torch.cuda.max_memory_allocated() / 2**20)
    else:
        print(high_water_mib() - rest)


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
    table = Table(title=hardware)
    columns = ["case", "plain s", "ours s", "ours bf16 s", "faster", "bf16 faster"]
    for column in [*columns, "plain MiB", "ours MiB", "memory"]:
        table.add_column(column, justify="right")
    rows = []
    for case in ["train x4"] if options.quick else CASES:
        seconds = measure(case, 2 if case == "forward 512" else 5, device)
        memory = {kind: peak_mib(case, kind) for kind in (PLAIN, OURS)}
        rows.append({"case": case, "seconds": seconds, "peak_mib": memory})
        table.add_row(
            case,
            *(f"{seconds[k]:.3f}" for k in (PLAIN, OURS, HALF)),
            *(f"{seconds[PLAIN] / seconds[k]:.2f}x" for k in (OURS, HALF)),
            *(f"{memory[k]:.0f}" for k in (PLAIN, OURS)),
            f"{memory[OURS] / memory[PLAIN]:.2f}x",
        )
    Console().print(table)
    if not options.quick:
        RESULTS.mkdir(exist_ok=True)
        name = "".join(c if c.isalnum() else "-" for c in hardware).strip("-").lower()
        about = {"hardware": hardware, "torch": torch.__version__, "python": sys.version.split()[0]}
        text = json.dumps({**about, "cases": rows}, indent=2) + "\n"
        (RESULTS / f"{name}.json").write_text(text)


if __name__ == "__main__":
    main()
