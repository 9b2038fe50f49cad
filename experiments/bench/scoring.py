"""Measure scoring and classical fusion of 512x512x31 images: user and system seconds on one core.

python experiments/bench/scoring.py [--rounds 3]

The images are mosaics of the sample scenes. A trial of bicubic interpolation fuses and scores
eleven of them, first with an empty cache of the scores of upsampled images, then with a full one.
"""

import argparse
import resource
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from bench import cpu_name

from feinfn.config import DataConfig, ModelConfig
from feinfn.data.pairs import ScenePairs
from feinfn.data.scene import Scene, make_scene
from feinfn.data.source import load_scene, resolve_data
from feinfn.evaluation import by_classical
from feinfn.methods.classical.registry import CLASSICAL
from feinfn.metrics.evaluation import ALL_INDICES, compare
from feinfn.metrics.label import METRICS
from feinfn.protocols.named import PROTOCOLS
from mhiflab.environment import keep_memory
from mhiflab.execute.evaluate import score_tests

CAVE = PROTOCOLS["cave_x4"]
SIDE = 512
SCENES = 11


def mosaic() -> Scene:
    """Return the sample scenes side by side, some of them mirrored."""
    data = resolve_data(DataConfig())
    scenes = [load_scene(data, name) for name in dict.fromkeys((*data.train, *data.test))]
    cubes = [scene.cube() for scene in scenes]
    count = -(-SIDE // min(cubes[0].shape[1:]))
    rows = [
        np.concatenate([cubes[(i * count + j) % len(cubes)] for j in range(count)], axis=2)
        for i in range(count)
    ]
    cube = np.concatenate(rows, axis=1)[:, :SIDE, :SIDE]
    return make_scene("mosaic", cube, scenes[0].wavelengths_nm, "sample")


def seconds(work: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Return user and system seconds of the fastest of some rounds."""
    took = []
    for _ in range(rounds):
        before = resource.getrusage(resource.RUSAGE_SELF)
        work()
        after = resource.getrusage(resource.RUSAGE_SELF)
        took.append((after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime))
    return min(took, key=sum)


def main() -> None:
    """Print a table of all pieces of work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    keep_memory()
    scene = mosaic()
    images = ScenePairs([scene], CAVE, ModelConfig(), torch.device("cpu"))
    image = images[0]
    fused_SHW, reference_SHW = image.inputs.lms_BSHW[0], image.reference
    assert reference_SHW is not None

    def fusing(name: str) -> Callable[[], object]:
        return lambda: by_classical(CLASSICAL[name], CAVE)(image)

    raw = [scene.raw_SHW * np.float32(1 - i / 20) for i in range(SCENES)]
    many = [replace(scene, name=f"m{i}", raw_SHW=x) for i, x in enumerate(raw)]
    tests = ScenePairs(many, CAVE, ModelConfig(), torch.device("cpu"))
    bicubic = by_classical(CLASSICAL["bicubic"], CAVE)
    print(f"{cpu_name()}, one thread, torch {torch.__version__}")
    print(f"{'':42}{'user s':>8}{'system s':>10}")
    with TemporaryDirectory() as folder:
        cases: dict[str, tuple[Callable[[], object], int]] = {
            "four metrics, seven conventions": (
                lambda: compare(fused_SHW, reference_SHW, 4, indices=METRICS),
                rounds,
            ),
            "nine indices, seven conventions": (
                lambda: compare(fused_SHW, reference_SHW, 4, indices=ALL_INDICES),
                rounds,
            ),
            "CNMF": (fusing("cnmf"), rounds),
            "subspace": (fusing("subspace"), rounds),
            "bicubic trial, empty cache": (lambda: score_tests(bicubic, tests, Path(folder)), 1),
            "bicubic trial, full cache": (lambda: score_tests(bicubic, tests, Path(folder)), 1),
        }
        for name, (work, repeats) in cases.items():
            user, system = seconds(work, repeats)
            print(f"{name:42}{user:8.2f}{system:10.2f}", flush=True)


if __name__ == "__main__":
    main()
