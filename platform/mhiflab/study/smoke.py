"""Smoke variant of any study: the same cases and code paths, in a minute on two cores."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from feinfn.config import DataConfig
from feinfn.data.source import EMBEDDED, embedded_scenes, load_scene
from feinfn.errors import UserError, require_one_of
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.protocol import Protocol
from mhiflab.study.schema import SmokeVariant, Study
from mhiflab.study.search import Scheduler

NARROW: dict[str, Any] = {
    "model.feat_dim": 16,
    "model.guide_dim": 16,
    "model.mlp_widths": [32, 16],
    "model.decoder_width": 16,
    "model.spatial_blocks": 1,
    "model.spectral_blocks": 1,
}
"""Keys set before cases and axes, so that a study of widths still compares widths."""

SHORT: dict[str, Any] = {
    "train.epochs": 2,
    "train.batch_size": 2,
    "train.patch_px": 32,
    "train.stride_px": 64,
    "train.validate_every": 1,
    "resources.workers": 0,
    "resources.cpus_per_worker": 1,
    "resources.gpus_per_worker": 0,
    "resources.gpu_memory_gib": None,
}
"""Keys set after cases and axes, which override everything."""

MARK = "smoke form: everything small, on the embedded sample"
"""Text in every figure of a smoke variant."""


def _serves_sample(protocol: Protocol) -> bool:
    """Return True if a protocol can simulate the embedded sample's inputs."""
    if protocol.srf == "measured":
        return False
    scene = load_scene(DataConfig(), next(iter(embedded_scenes("sample"))))
    try:
        protocol.response(scene.raw_SHW.shape[0], scene.wavelengths_nm)
    except UserError:
        return False
    return True


def on_sample(settings: Mapping[str, Any], varied: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys that put the embedded sample in the place of data from elsewhere.

    `cave_x4` replaces a protocol that cannot simulate the sample's inputs. The smoke variant then
    tries everything else of the study.
    """
    data = {**settings.get("data", {}), **varied.get("data", {})}
    if varied.get("data.source", data.get("source", "sample")) in EMBEDDED:
        return {}
    chosen = varied.get("protocol", settings.get("protocol", "cave_x4"))
    name = chosen.get("preset", chosen.get("name")) if isinstance(chosen, Mapping) else chosen
    keys: dict[str, Any] = {"data": {"source": "sample"}, "model.hsi_bands": 31}
    if name in PROTOCOLS and not _serves_sample(PROTOCOLS[name]):
        keys["protocol"] = name = "cave_x4"
    return keys | {"model.msi_bands": len(PROTOCOLS[name].msi_order) if name in PROTOCOLS else 3}


def smoke_variant(study: Study, path: Path) -> Study:
    """Return the study's smoke variant: few values of everything, and one seed.

    Raise `UserError` if `smoke.cases` names no case of the study.
    """
    smoke = study.smoke
    chosen = list(study.cases) if smoke.cases is None else smoke.cases
    for name in chosen:
        require_one_of(f"{path}: smoke.cases", name, study.cases, "some of ")
    axes = smoke.axes
    if axes is None:
        ends = {key: (values[0], values[-1]) for key, values in study.axes.items()}
        axes = {key: list({json.dumps(v): v for v in both}.values()) for key, both in ends.items()}
    search = study.search
    if search is not None:
        short = replace(search.scheduler, interval_epochs=1) if search.population else Scheduler()
        search = replace(search, trials=min(search.trials, 3), scheduler=short)
    reduced = {
        "search": search,
        "title": f"{study.title} (smoke)",
        "cases": {name: study.cases[name] for name in chosen},
        "axes": axes,
        "seeds": study.seeds[:1],
    }
    return SmokeVariant(**(vars(study) | reduced))
