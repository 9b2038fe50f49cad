"""Where scenes come from: the embedded sample or a folder, with splits and fingerprints."""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from feinfn.config import DataConfig, ModelConfig
from feinfn.data.readers.hdf5 import read_scene
from feinfn.data.scene import Scene
from feinfn.errors import UserError
from feinfn.protocols import Protocol, check_ratio

PARTS = ("train", "validation", "test")


@cache
def sample_manifest() -> dict[str, dict[str, str]]:
    """Return the embedded sample's scenes: name -> file, sha256, part."""
    return json.loads(files("feinfn").joinpath("data/sample/manifest.json").read_text())


def resolve_data(config: DataConfig) -> DataConfig:
    """Return the configuration with every scene named; the sample fills its own split.

    A folder becomes absolute, because workers may run elsewhere.

    Raises `UserError` for names the sample does not hold.
    """
    if config.source != "sample":
        return replace(config, source=str(Path(config.source).resolve()))
    manifest = sample_manifest()
    parts: dict[str, Any] = {}
    for part in PARTS:
        names = getattr(config, part)
        unknown = [n for n in names if n not in manifest]
        if unknown:
            raise UserError(
                f"data.{part}: found {unknown[0]!r}, expected scenes of the sample: "
                + ", ".join(manifest)
            )
        parts[part] = names or tuple(n for n, entry in manifest.items() if entry["part"] == part)
    return replace(config, **parts)


def load_scene(config: DataConfig, name: str) -> Scene:
    """Read one scene of the source; the sample's files are checked against their SHA-256."""
    if config.source != "sample":
        return read_scene(Path(config.source) / f"{name}.h5")
    entry = sample_manifest()[name]
    with as_file(files("feinfn").joinpath("data/sample", entry["file"])) as path:
        if not path.is_file():
            raise UserError(f"{path}: the embedded sample is incomplete; install feinfn again")
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != entry["sha256"]:
            raise UserError(
                f"{path}: found SHA-256 {found[:12]}..., expected {entry['sha256'][:12]}...; the "
                "embedded sample was changed: install feinfn again"
            )
        return read_scene(path)


@dataclass(frozen=True)
class Survey:
    """The data's identity, and what must fit a model: source and shape of every scene."""

    fingerprint: str
    """SHA-256 over every part's scene names and pixels."""
    scenes: tuple[tuple[str, tuple[int, ...]], ...]
    """(file, cube shape) of every scene."""


def survey(config: DataConfig) -> Survey:
    """Read every scene once and return the data's identity and shapes; raises `UserError`."""
    digest = hashlib.sha256()
    scenes = []
    for part in PARTS:
        for name in getattr(config, part):
            scene = load_scene(config, name)
            digest.update(f"{part}/{name}:{scene.pixel_hash()}\n".encode())
            scenes.append((scene.source, scene.raw_SHW.shape))
    return Survey(digest.hexdigest(), tuple(scenes))


def check_fit(source: str, shape: tuple[int, ...], protocol: Protocol, model: ModelConfig) -> None:
    """Raise `UserError` unless a scene's bands and size fit the model and the protocol."""
    if shape[0] != model.hsi_bands:
        raise UserError(
            f"{source}: found {shape[0]} bands, expected model.hsi_bands = {model.hsi_bands}; "
            "change the field or choose other data"
        )
    if len(protocol.msi_order) != model.msi_bands:
        raise UserError(
            f"model.msi_bands: found {model.msi_bands}, expected {len(protocol.msi_order)}, the "
            f"MSI bands of protocol {protocol.name}"
        )
    lr_size = tuple(n // protocol.ratio for n in shape[1:])
    check_ratio(lr_size, shape[1:], protocol.ratio, source)
