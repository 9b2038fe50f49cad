"""Memory of concurrent trials that share their scenes, and the speed of the patch feeder.

    python experiments/bench/sharing.py [--mib 256]

First print the private memory of 1, 2 and 4 concurrent Ray tasks that draw batches from the same
scenes, beside the memory of copies of the scenes. Then print samples per second of the patch feeder
and of a training step, for a narrow and the released network.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import ray
import torch

from feinfn.config import ModelConfig, TrainConfig
from feinfn.data.patches import Patches
from feinfn.data.scene import Scene, make_scene
from feinfn.methods.feinfn.model import FeINFN
from feinfn.protocols.named import PROTOCOLS
from feinfn.training.losses import training_loss

CAVE = PROTOCOLS["cave_x4"]
CPU = torch.device("cpu")
NARROW = ModelConfig(feat_dim=32, guide_dim=32, mlp_widths=(64, 32), decoder_width=64)


def scenes(mib: int) -> list[Scene]:
    """Return random scenes of 512x512x31 in 16 bits, about `mib` MiB in total."""
    draw = np.random.default_rng(0)
    nm = np.arange(400, 701, 10.0)
    count = max(1, round(mib * 2**20 / (31 * 512 * 512 * 2)))
    return [
        make_scene(
            f"s{i}",
            draw.integers(0, 65536, (31, 512, 512), np.uint16),
            nm,
            "random",
            full_scale=65535,
        )
        for i in range(count)
    ]


def memory_mib() -> dict[str, float]:
    """Return this process's private and shared resident memory in MiB (Linux)."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    kib = {line.split(":")[0]: float(line.split()[1]) for line in lines if line.endswith("kB")}
    private = kib["Private_Clean"] + kib["Private_Dirty"]
    return {"private": private / 1024, "shared": kib["Rss"] / 1024 - private / 1024}


def draw_batches(scenes: list[Scene], count: int) -> Patches:
    """Draw `count` batches of four patches from all over the scenes; return the feeder."""
    patches = Patches(scenes, CAVE, TrainConfig(sampling="random"), CPU)
    windows = patches.windows(1, 0)
    for i in range(count):
        patches.batch([windows[(i + j * count) % len(windows)] for j in range(4)])
    return patches


@ray.remote(num_cpus=0.5)
def trial(refs: list, wait_s: float) -> dict[str, float]:
    """Draw patches from shared scenes as a trial does; return the memory that it took in MiB."""
    torch.set_num_threads(1)
    # Load libraries and allocator first, so that later growth is due to the scenes.
    draw_batches(scenes(16), 20)
    before = memory_mib()
    patches = draw_batches([ray.get(ref) for ref in refs], 50)
    for scene in patches.scenes:
        # Touch every page.
        int(scene.raw_SHW.sum(dtype=np.int64))
    time.sleep(wait_s)
    return {key: value - before[key] for key, value in memory_mib().items()}


def sharing(mib: int) -> None:
    """Print the memory of 1, 2 and 4 concurrent tasks that hold the same scenes."""
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2 * mib << 20
    )
    refs = [ray.put(scene) for scene in scenes(mib)]
    print(f"scenes: {mib} MiB in the object store, one copy")
    print("trials   private MiB of each           copies would take")
    for count in (1, 2, 4):
        grown = ray.get([trial.remote(refs, 3.0) for _ in range(count)])
        private = ", ".join(f"{g['private']:.0f}" for g in grown)
        print(f"{count:6d}   {private:28s}  {count * mib} MiB", flush=True)
    ray.shutdown()


def feeding() -> None:
    """Print samples per second of feeder and training step, for batches of 4 patches of 64x64."""
    patches = Patches(scenes(64), CAVE, TrainConfig(sampling="random"), CPU)
    windows = patches.windows(1, 0)[:4]

    def seconds(work: Callable[[], object], repeats: int) -> float:
        work()
        took = []
        for _ in range(repeats):
            started = time.perf_counter()
            work()
            took.append(time.perf_counter() - started)
        return statistics.median(took)

    feed = seconds(lambda: patches.batch(windows), 20)
    print(f"feeder: {4 / feed:.0f} samples/s")
    pair = patches.batch(windows)
    for name, config in (("narrow", NARROW), ("released", ModelConfig())):
        model = FeINFN(config)
        optimizer = torch.optim.AdamW(model.parameters(), fused=True)

        def step(model: FeINFN = model, optimizer: torch.optim.AdamW = optimizer) -> None:
            optimizer.zero_grad()
            training_loss(TrainConfig(), model(*pair.inputs()), pair.reference_BSHW).backward()
            optimizer.step()

        took = seconds(step, 5)
        share = feed / (feed + took)
        print(f"{name} step: {4 / took:.1f} samples/s; the feeder takes {share:.1%} of the time")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mib", type=int, default=256, help="size of the shared scenes")
    given = parser.parse_args()
    sharing(given.mib)
    feeding()
