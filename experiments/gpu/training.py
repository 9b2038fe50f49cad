"""A training of the released network for as long as there is time, continued from its state.

The state is kept in pieces of a size that people can copy, in the folder of the results.
"""

import hashlib
import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch

from experiments.gpu.memory import fresh
from experiments.gpu.part import Task, Unfinished
from feinfn.config import RECIPES, DataConfig, TrainConfig
from feinfn.data import store
from feinfn.data.pairs import ScenePairs, with_reference
from feinfn.data.patches import Patches
from feinfn.data.scene import Scene
from feinfn.data.source import EMBEDDED, load_scene, resolve_data, scenes_in
from feinfn.errors import Preempted, UserError
from feinfn.files import BEST, STATE
from feinfn.methods.feinfn.model import FeINFN
from feinfn.protocols.named import PROTOCOLS
from feinfn.training.train import Report, train

LARGEST_MB = 30
"""Most data that are read."""
PIECE_BYTES, PIECES = 14_900_000, 5
"""Size and most number of a state's pieces: with the weights and the results, eight files."""
SAVE_EVERY_S = {"cuda": 45.0, "cpu": 3.0}
"""Seconds between saved states."""
SEED = 1


def training(task: Task) -> str:
    """Train until the time is over; raise `Unfinished` unless all epochs are done."""
    folder = task.work / "training"
    join_pieces(task.out, folder)
    parts = scenes(task.data)
    protocol = PROTOCOLS[task.protocol]
    bands = {
        "hsi_bands": parts[0][0].raw_SHW.shape[0],
        "msi_bands": len(protocol.msi_order),
    }
    check_same_data(task, parts)
    model_config, config = replace(task.config, **bands), recipe(task)
    patches = Patches(
        [with_reference(x, protocol) for x in parts[0]], protocol, config, task.device
    )
    validation = ScenePairs(parts[1], protocol, model_config, task.device)
    best: dict[str, float] = {}

    def on_epoch(report: Report) -> None:
        if "val_psnr" in report.metrics:
            task.add(f"epoch {report.epoch} of {report.epochs}", **report.metrics)

    done = False
    while not done:
        torch.manual_seed(SEED)
        model = FeINFN(model_config).to(task.device)
        until = min(time.time() + SAVE_EVERY_S[task.device.type], task.until - 2)
        never = config.epochs
        try:
            best = train(
                model,
                patches,
                validation,
                config,
                SEED,
                folder,
                on_epoch,
                preempted=lambda end=until: time.time() > end,
                checkpoint_every=never,
            )
            done = True
        except Preempted:
            pass
        split_state(folder, task.out)
        task.record.write_page()
        if not done and task.left() < 3:
            raise Unfinished(progress(task))
    return f"{progress(task)}; best {best['val_psnr']:.2f} dB"


def recipe(task: Task) -> TrainConfig:
    """Return the released recipe, on a processor with small patches and frequent validation."""
    if task.on_gpu:
        return RECIPES["released"]
    small = {"patch_px": 32, "stride_px": 64, "validate_every": 1}
    return replace(RECIPES["released"], **small)


def progress(task: Task) -> str:
    """Return the last and the best validation in words."""
    rows = {n: r for n, r in task.rows().items() if "val_psnr" in r}
    if not rows:
        return "no validation yet"
    last, best = list(rows)[-1], max(rows, key=lambda name: rows[name]["val_psnr"])
    return f"{last}, {rows[last]['val_psnr']:.2f} dB; best {rows[best]['val_psnr']:.2f} dB, {best}"


def scenes(data: str) -> tuple[list[Scene], list[Scene]]:
    """Return training and validation scenes: embedded ones, or those of a store, folder or file.

    Without a split, the last scene validates; of a single scene, its lower quarter does. Raises
    `UserError` for data that are larger than 30 MB or cannot be read.
    """
    if data in EMBEDDED:
        embedded = resolve_data(DataConfig(source=data))
        return load(embedded, embedded.train), load(embedded, embedded.validation)
    path = Path(data).resolve()
    files = [path] if path.is_file() else [x for x in path.rglob("*") if x.is_file()]
    size = sum(x.stat().st_size for x in files)
    if not 0 < size <= LARGEST_MB * 1e6:
        raise UserError(
            f"DATA: found {size / 1e6:.0f} MB in {path}, expected at most {LARGEST_MB} MB of "
            "scenes; choose fewer"
        )
    source, names, split = path, [], {}
    if path.is_dir():
        names = list(scenes_in(path))
    else:
        try:
            stored = store.manifest(path)
            names, split = list(stored["scenes"]), stored["split"] or {}
        except UserError:
            source, names = path.parent, [path.stem]
    config = DataConfig(source=str(source))
    if split.get("train") and split.get("validation"):
        return load(config, split["train"]), load(config, split["validation"])
    loaded = load(config, sorted(names))
    if len(loaded) > 1:
        return loaded[:-1], loaded[-1:]
    (height, width), scene = loaded[0].raw_SHW.shape[1:], loaded[0]
    cut = height * 3 // 4 // 32 * 32
    return [scene.window((0, cut), (0, width))], [scene.window((cut, height), (0, width))]


def load(config: DataConfig, names: Iterable[str]) -> list[Scene]:
    """Return scenes by name."""
    return [load_scene(config, name) for name in names]


def check_same_data(task: Task, parts: tuple[list[Scene], list[Scene]]) -> None:
    """Raise `UserError` if the state is of a training on other scenes."""
    hashes = "".join(scene.pixel_hash() for part in parts for scene in part)
    facts = {
        "value": f"{len(parts[0])} scenes, {len(parts[1])} validate, {task.protocol}",
        "sha256": hashlib.sha256(f"{hashes}{task.protocol}".encode()).hexdigest()[:16],
    }
    before = task.rows().get("data", facts)
    if before["sha256"] != facts["sha256"]:
        raise UserError(
            f"DATA: found other scenes than those ({before['value']}) of the training in "
            f"{task.out}; give these, or another OUT"
        )
    task.add("data", **facts)


def pieces(out: Path) -> list[Path]:
    """Return the pieces of a state in order."""
    return sorted(out.glob(f"{STATE}.[0-9]"))


def split_state(folder: Path, out: Path) -> None:
    """Put the newest state in pieces, and the best weights, into the folder of results."""
    state = (folder / STATE).read_bytes()
    contents = {
        f"{STATE}.{i}": state[start : start + PIECE_BYTES]
        for i, start in enumerate(range(0, len(state), PIECE_BYTES), start=1)
    }
    if len(contents) > PIECES:
        raise UserError(f"{folder / STATE}: more than {PIECES} pieces; it is kept there alone")
    if (folder / BEST).exists():
        contents[BEST] = (folder / BEST).read_bytes()
    waiting = folder / "pieces"
    waiting.mkdir(exist_ok=True)
    for name, content in contents.items():
        (waiting / name).write_bytes(content)
    # All are on this disk before the first takes its place, so that a break hardly ever mixes two
    # states; a mixture fails its checksum.
    for name in contents:
        shutil.move(waiting / name, out / name)


def join_pieces(out: Path, folder: Path) -> None:
    """Make the state anew from its pieces, unless the folder still has it."""
    if (folder / STATE).exists() or not pieces(out):
        folder.mkdir(parents=True, exist_ok=True)
        return
    fresh(folder)
    (folder / STATE).write_bytes(b"".join(x.read_bytes() for x in pieces(out)))
    if (out / BEST).exists():
        shutil.copy(out / BEST, folder)
