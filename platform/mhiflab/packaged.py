"""A trained network as an MLflow model: `mlflow.pyfunc` loads it, `mlflow models serve` serves it.

The folder holds weights (safetensors), settings (JSON) and MLflow's description of both; there is
no pickle in it, and the code is this package's. Legend: B batch, S bands, M MSI bands, h w LR
size, H W HR size.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from feinfn.errors import UserError
from feinfn.files import BEST
from feinfn.inference.apply import PROTOCOL_FILE, WAVELENGTHS_FILE, load_trained
from feinfn.inference.inputs import check_unit
from feinfn.protocols.protocol import Protocol

REQUIREMENTS = ("torch", "numpy", "scipy", "h5py", "safetensors", "mhiflab")

CONFIG_FILE = "config.json"
LOADER = "mhiflab.packaged"
"""Module that recorded models name as their loader, so it must not move."""


class Fuser:
    """A trained network that fuses arrays, with the upsampling of its training protocol."""

    def __init__(self, folder: Path) -> None:
        self.trained = load_trained(folder)

    def predict(self, data: dict[str, np.ndarray], params: dict | None = None) -> np.ndarray:
        """Return the fused HSI [B, S, H, W] in [0, 1] of `hsi` [B, S, h, w] and `msi` [B, M, H, W].

        Both are float32 in [0, 1]. Raises `UserError` if values lie far outside, if an axis is
        empty, or if H x W is not h x w times an integer of 2 or more.
        """
        hsi, msi = (torch.from_numpy(np.array(data[name], np.float32)) for name in ("hsi", "msi"))
        if not all((*hsi.shape, *msi.shape)):
            raise UserError(
                f"hsi, msi: found shapes {hsi.shape}, {msi.shape}; expected no empty axis"
            )
        for name, values in (("hsi", hsi), ("msi", msi)):
            check_unit(values.numpy(), name, "", "divide by the number that means 1")
        return self.trained.fuse(hsi, msi).numpy()


def _load_pyfunc(path: str) -> Fuser:
    """Load the model of a folder; MLflow calls this by name."""
    return Fuser(Path(path))


def save_packaged(
    folder: Path,
    weights: Path,
    model: Any,
    protocol: Protocol,
    metadata: dict[str, Any],
    wavelengths_nm: Sequence[float] | None = None,
) -> None:
    """Write a model folder around a weights file that training kept; contact no server.

    `metadata` is stored with the model; `wavelengths_nm` are the band centres [S] it was trained
    on.
    """
    from mlflow import pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    def cube(bands: int, name: str | None = None) -> TensorSpec:
        return TensorSpec(np.dtype(np.float32), (-1, bands, -1, -1), name)

    def grey(bands: int, size: int) -> np.ndarray:
        return np.full((1, bands, size, size), 0.5, np.float32)

    pyfunc.save_model(
        folder,
        loader_module=LOADER,
        signature=ModelSignature(
            Schema([cube(model.hsi_bands, "hsi"), cube(model.msi_bands, "msi")]),
            Schema([cube(model.hsi_bands)]),
        ),
        # The smallest request that a server answers: larger examples make the folder large.
        input_example={
            "hsi": grey(model.hsi_bands, 2),
            "msi": grey(model.msi_bands, 2 * protocol.ratio),
        },
        # Listed here, because inferring them loads the model in another process and goes online.
        pip_requirements=[f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS],
        metadata=metadata,
    )
    shutil.copyfile(weights, folder / BEST)
    json_files: dict[str, Any] = {CONFIG_FILE: asdict(model), PROTOCOL_FILE: asdict(protocol)}
    if wavelengths_nm is not None:
        json_files[WAVELENGTHS_FILE] = list(wavelengths_nm)
    for name, content in json_files.items():
        text = json.dumps(content, indent=2, sort_keys=True)
        (folder / name).write_text(text + "\n", encoding="utf-8")
