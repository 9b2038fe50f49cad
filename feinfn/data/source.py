"""Sources of scenes: embedded crops, a scene store or a folder; splits and fingerprints."""

import hashlib
import json
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from feinfn.config import DataConfig
from feinfn.data import store
from feinfn.data.readers.array import DEFAULTS, Options
from feinfn.data.readers.formats import open_file, read_prepared, scenes_in
from feinfn.data.scene import Scene, read_scene
from feinfn.data.splits import PARTS
from feinfn.errors import UserError, require, require_one_of
from feinfn.files import file_sha256
from feinfn.physics import Bands
from feinfn.protocols.protocol import Protocol, check_ratio
from feinfn.region import Region

EMBEDDED = ("sample", "demo")
"""Sources that come with the package, each a folder beside this file."""


@cache
def embedded_scenes(source: str) -> dict[str, dict[str, str]]:
    """Return the scenes of an embedded source: name -> file, sha256, part."""
    manifest = files("feinfn").joinpath("data", source, "manifest.json")
    return json.loads(manifest.read_text(encoding="utf-8"))


def resolve_data(config: DataConfig) -> DataConfig:
    """Return the configuration with every scene named and an absolute path, for any worker.

    Parts that are not given are filled from the split of embedded scenes or the scene store. Raises
    `UserError` for scenes that the source does not hold, and for a part without scenes.
    """
    default_split: dict[str, tuple[str, ...]] = {}
    available: Collection[str] | None = None
    path = Path(config.source).resolve()
    embedded = config.source in EMBEDDED
    if not embedded and not path.exists():
        raise UserError(
            f"data.source: found {config.source!r}, which does not exist ({path}); expected "
            "`sample`, `demo`, a scene store (mhiflab data prepare makes one) or a folder of scenes"
        )
    if embedded:
        manifest = embedded_scenes(config.source)
        available = manifest
        for part in PARTS:
            default_split[part] = tuple(n for n, entry in manifest.items() if entry["part"] == part)
    elif path.is_file():
        stored = store.manifest(path)
        available, default_split = stored["scenes"], stored["split"] or {}
    elif config.inputs != "stored":
        available = scenes_in(path)
    parts: dict[str, Any] = {}
    for part in PARTS:
        names = getattr(config, part) or tuple(default_split.get(part, ()))
        expected = "at least one scene (or a store prepared with --split)"
        require(len(names) > 0, f"data.{part}", names, expected)
        for name in names:
            scene = Region.parse(name, f"data.{part}").scene
            if available is not None:
                among = f"scenes of {config.source}: "
                require_one_of(f"data.{part}", scene, sorted(available), among)
        parts[part] = names
    return replace(config, **parts, source=config.source if embedded else str(path))


def load_scene(config: DataConfig, name: str) -> Scene:
    """Read a scene of the source, or a window of one; raise `UserError` if that fails.

    Embedded files are checked against their SHA-256.
    """
    region = Region.parse(name, "data")
    path = Path(config.source)
    window = None if region.rows is None or region.cols is None else (region.rows, region.cols)
    if config.source in EMBEDDED:
        scene = _embedded_scene(config.source, region.scene)
    elif path.is_file():
        return replace(store.read_stored(path, region.scene, window), name=name)
    else:
        paths = scenes_in(path)
        if region.scene not in paths:
            raise UserError(f"{path}: no scene {region.scene!r}, found " + ", ".join(sorted(paths)))
        scene = read_scene(paths[region.scene])
    return replace(scene.window(*window) if window else scene, name=name)


def _embedded_scene(source: str, name: str) -> Scene:
    entry = embedded_scenes(source)[name]
    with as_file(files("feinfn").joinpath("data", source, entry["file"])) as path:
        if not path.is_file():
            raise UserError(f"{path}: an embedded scene is missing; install feinfn again")
        sha256 = file_sha256(path)
        if sha256 != entry["sha256"]:
            raise UserError(
                f"{path}: found SHA-256 {sha256[:12]}..., expected {entry['sha256'][:12]}...; an "
                "embedded scene was changed: install feinfn again"
            )
        return read_scene(path)


def scene_files(path: Path, options: Options = DEFAULTS) -> dict[str, tuple[Path, Options]]:
    """Return every scene of a folder, or of one file: name -> path and options to read it with.

    A prepared file (GT, LRHSI, RGB, HSI_up) of several images holds a scene each, numbered.
    """
    scenes: dict[str, tuple[Path, Options]] = {}
    for name, file in (scenes_in(path) if path.is_dir() else {path.stem: path}).items():
        count = 1
        # Whoever reads a bad file says what is wrong with it.
        with suppress(UserError):
            if options.key is None and open_file(file).kind == "prepared":
                count = read_prepared(file).count
        if count == 1:
            scenes[name] = file, options
            continue
        for i in range(count):
            scenes[f"{name}_{i:05d}"] = file, replace(options, key=str(i))
    return scenes


@dataclass(frozen=True)
class SceneSummary:
    """Summary of one scene, known before a trial opens it."""

    part: str
    name: str
    source: str
    shape_SHW: tuple[int, ...]
    msi_size: tuple[int, ...] | None
    """Rows and columns of a measured MSI."""
    wavelengths_nm: tuple[float, ...] | None
    """Band centres; None if they are unknown, or not needed because inputs are stored."""
    content: str
    """SHA-256 of the pixels, or of the prepared file."""
    notes: tuple[str, ...] = ()
    """Facts of the file that its reader used."""
    images: int = 1
    """Number of images; a prepared file may hold more."""

    def fused_size(self) -> tuple[int, int]:
        """Return rows and columns of the fused image."""
        size = self.shape_SHW[1:] if self.msi_size is None else self.msi_size
        return (size[0], size[1])


@dataclass(frozen=True)
class Survey:
    """Identity of the data, and source and shape of every scene, which must fit a model."""

    fingerprint: str
    """SHA-256 over every part's scene names and pixels."""
    scenes: tuple[SceneSummary, ...]

    @property
    def training_nm(self) -> tuple[float, ...] | None:
        """Band centres [S] that all training scenes share; None if they are not known."""
        grids = {scene.wavelengths_nm for scene in self.scenes if scene.part == "train"}
        return grids.pop() if len(grids) == 1 else None


def survey(config: DataConfig) -> Survey:
    """Read every scene once and return identity and shapes of the data; raise `UserError`."""
    digest = hashlib.sha256()
    scenes: list[SceneSummary] = []
    for part in PARTS:
        for name in getattr(config, part):
            if config.inputs == "stored":
                file = read_prepared(Path(config.source) / f"{name}.h5")
                content = file_sha256(file.path)
                summary = SceneSummary(
                    *(part, name, str(file.path), file.shape_SHW, None, None, content),
                    images=file.count,
                )
            else:
                scene = load_scene(config, name)
                content = scene.pixel_hash()
                size = None if scene.msi_MHW is None else scene.msi_MHW.shape[1:]
                nm = None if scene.wavelengths_nm is None else tuple(scene.wavelengths_nm.tolist())
                summary = SceneSummary(
                    part, name, scene.source, scene.raw_SHW.shape, size, nm, content, scene.notes
                )
            scenes.append(summary)
            digest.update(f"{part}/{name}:{content}\n".encode())
    return Survey(digest.hexdigest(), tuple(scenes))


def check_fit(source: str, shape: tuple[int, ...], protocol: Protocol, model: Bands) -> None:
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


def check_same_draw(protocol: Protocol) -> None:
    """Raise `UserError` if patches draw noise of their own, which the base of a scene lacks."""
    expected = "none with a base of whole scenes, which fits one draw; set data.inputs: patch"
    require(not protocol.noisy, "protocol.hsi_snr_db, protocol.msi_snr_db", "noise", expected)
