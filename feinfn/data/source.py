"""Where scenes come from: the embedded sample or a folder, with splits and fingerprints."""

import hashlib
import json
from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from feinfn.config import DataConfig
from feinfn.data.scene import Scene, read_scene
from feinfn.errors import UserError

PARTS = ("train", "validation", "test")


@cache
def sample_manifest() -> dict[str, dict[str, str]]:
    """Return the embedded sample's scenes: name -> file, sha256, part."""
    return json.loads(files("feinfn").joinpath("data/sample/manifest.json").read_text())


def resolve_data(config: DataConfig) -> DataConfig:
    """Return the configuration with every scene named; the sample fills its own split.

    Raises `UserError` for names the sample does not hold.
    """
    if config.source != "sample":
        return config
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


def fingerprint(config: DataConfig) -> str:
    """Return the SHA-256 over every part's scene names and pixels: the data's identity."""
    digest = hashlib.sha256()
    for part in PARTS:
        for name in getattr(config, part):
            digest.update(f"{part}/{name}:{load_scene(config, name).pixel_hash()}\n".encode())
    return digest.hexdigest()
