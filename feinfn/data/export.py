"""Export of simulated pairs in the HDF5 layout that training codes of this field read.

Four float32 arrays in [0, 1], [N, C, H, W]: `GT` is the reference, `LRHSI` the LR-HSI, `RGB` the
MSI (of any bands), and `HSI_up` the upsampled LR-HSI.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import torch

from feinfn.config import TrainConfig
from feinfn.data.pairs import with_reference
from feinfn.data.patches import Patches
from feinfn.data.scene import Scene
from feinfn.errors import UserError
from feinfn.files import write_hdf5
from feinfn.protocols.simulate import Pair, Protocol, simulate

KEYS = {
    "GT": "reference_BSHW",
    "LRHSI": "lr_hsi_BShw",
    "RGB": "msi_BMHW",
    "HSI_up": "lms_BSHW",
}
STRIDE_PX = 34
"""Besides 33, the only stride that cuts a scene of 512 pixels into 14x14 patches of 64 pixels, like
the released files (3,920 from 20 scenes); 34 covers more of the scene. Inferred from that count."""


def export(pairs: Iterable[Pair], path: Path, about: Mapping[str, Any]) -> int:
    """Write pairs one after another, with `about` as attributes; return the number of images.

    Raises `UserError` for pairs of different shapes, for no pairs, and for a full disk.
    """
    count = 0

    def fill(file: h5py.File) -> None:
        nonlocal count
        for pair in pairs:
            for key, field in KEYS.items():
                x = getattr(pair, field).cpu().numpy()
                if key not in file:
                    file.create_dataset(
                        key,
                        (0, *x.shape[1:]),
                        "f4",
                        maxshape=(None, *x.shape[1:]),
                        chunks=x[:1].shape,
                    )
                array = file[key]
                if array.shape[1:] != x.shape[1:]:
                    raise UserError(
                        f"{path}: found images of {key} of shape {x.shape[1:]} after others of "
                        f"{array.shape[1:]}, expected one shape; export patches or one size at once"
                    )
                array.resize(count + len(x), axis=0)
                array[count:] = x
            count += len(x)
        if not count:
            raise UserError(f"{path}: found nothing to export, expected at least one scene")
        file.attrs.update(about)

    write_hdf5(path, fill)
    return count


def facts(protocol: Protocol, names: Iterable[str], patch_px: int | None, stride_px: int) -> dict:
    """Return the attributes of an exported file, text and numbers."""
    patches = f"patches of {patch_px} px every {stride_px} px, row by row, each degraded by itself"
    return {
        "about": f"{patches} (as the released files seem to be: inferred)"
        if patch_px
        else "whole scenes",
        "band_order_of_RGB": ",".join(protocol.msi_order),
        "protocol": protocol.name,
        "protocol_definition": json.dumps(protocol.definition()),
        "scenes": json.dumps(list(names)),
    }


def simulated_pairs(
    scenes: Iterable[Scene], protocol: Protocol, patch_px: int | None, stride_px: int = STRIDE_PX
) -> Iterator[Pair]:
    """Yield the pairs of whole scenes, or one batch for each row of patches of each scene.

    A patch is degraded by itself: at its border the protocol's border applies, not its
    surroundings. Values that noise takes out of [0, 1] are clipped. Raises `UserError` for a patch
    that does not fit the scene or the ratio, and for scenes that do not fit the protocol.
    """
    count = 0
    for scene in scenes:
        for pair in _scene_pairs(
            with_reference(scene, protocol), protocol, patch_px, stride_px, count
        ):
            count += len(pair.reference_BSHW)
            yield Pair(*(getattr(pair, field.name).clamp(0, 1) for field in fields(pair)))


def _scene_pairs(
    scene: Scene, protocol: Protocol, patch_px: int | None, stride_px: int, noise_seed: int
) -> Iterator[Pair]:
    """Yield the pair of a scene, or one batch for each row of its patches."""
    if patch_px is None:
        scene.check_whole()
        msi = None if scene.msi_MHW is None else torch.from_numpy(scene.msi_MHW)[None]
        cube, nm = torch.from_numpy(scene.cube())[None], scene.wavelengths_nm
        yield simulate(cube, nm, protocol, scene.source, msi_BMHW=msi, noise_seed=noise_seed)
        return
    config = TrainConfig(patch_px=patch_px, stride_px=stride_px)
    patches = Patches([scene], protocol, config, torch.device("cpu"), alone=True)
    windows = (replace(w, noise_seed=noise_seed + i) for i, w in enumerate(patches.grid))
    for _, row in groupby(windows, lambda window: window.top):
        yield patches.batch(list(row))
