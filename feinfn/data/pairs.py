"""Whole scenes as a network sees them: simulated, or as two real sensors measured them.

A real pair has a measured MSI. Where it lies on the cube's own grid, the cube is the reference and
only the LR-HSI is simulated. Where it is finer, the cube itself is the LR-HSI and no reference
exists: training and choosing take both images degraded by the ratio, so that the cube becomes the
reference (Wald's protocol), and testing fuses them as they are.

Prepared files as they are: stored inputs and references, nothing simulated.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from feinfn.config import Bands, DataConfig
from feinfn.data.readers.hdf5 import Prepared, read_prepared
from feinfn.data.scene import Scene
from feinfn.data.source import check_fit
from feinfn.errors import UserError
from feinfn.protocols.simulate import Inputs, Pair, Protocol, simulate, upsample


def has_reference(scene: Scene) -> bool:
    """Return whether the scene's cube is as fine as its MSI will be."""
    return scene.msi_MHW is None or scene.msi_MHW.shape[1:] == scene.raw_SHW.shape[1:]


def with_reference(scene: Scene, protocol: Protocol) -> Scene:
    """Return a real pair without reference with its MSI brought to the cube's grid, else the scene.

    Raises `UserError` where the grids differ by another ratio than the protocol's.
    """
    if has_reference(scene):
        return scene
    msi = torch.tensor(scene.msi_MHW)[None]
    _check_finer(scene, protocol)
    return replace(scene, msi_MHW=protocol.spatial()(msi)[0].numpy())


def _check_finer(scene: Scene, protocol: Protocol) -> None:
    assert scene.msi_MHW is not None, "only real pairs have a finer MSI"
    (height, width), finer = scene.raw_SHW.shape[1:], scene.msi_MHW.shape[1:]
    if finer != (height * protocol.ratio, width * protocol.ratio):
        raise UserError(
            f"{scene.source}: found an MSI of {finer[0]}x{finer[1]} pixels beside a cube of "
            f"{height}x{width}, expected {protocol.ratio} times as many along each axis, the ratio "
            f"of protocol {protocol.name}; use a protocol of the pair's ratio"
        )


def observed_inputs(scene: Scene, protocol: Protocol, device: torch.device) -> Inputs:
    """Return a real pair without reference as it was measured, batch of one."""
    _check_finer(scene, protocol)
    lr_hsi = torch.from_numpy(scene.cube())[None].to(device)
    msi = torch.tensor(scene.msi_MHW)[None].to(device)
    return Inputs(msi, upsample(lr_hsi, protocol), lr_hsi)


def scene_pair(scene: Scene, protocol: Protocol, model: Bands, device: torch.device) -> Pair:
    """Return a scene's simulated inputs and reference, batch of one.

    Raises `UserError` where scene, protocol and model do not fit each other.
    """
    check_fit(scene.source, scene.raw_SHW.shape, protocol, model)
    scene = with_reference(scene, protocol)
    cube = torch.from_numpy(scene.cube())[None].to(device)
    msi = None if scene.msi_MHW is None else torch.tensor(scene.msi_MHW)[None].to(device)
    # A scene's noise follows its name, so that every run sees the same.
    seed = int.from_bytes(hashlib.sha256(scene.name.encode()).digest()[:4], "big")
    return simulate(
        cube, scene.wavelengths_nm, protocol, scene.source, msi_BMHW=msi, noise_seed=seed
    )


class ScenePairs(Sequence[Pair]):
    """Scenes simulated anew whenever one is asked for, so that none is kept on the device."""

    def __init__(
        self, scenes: Sequence[Scene], protocol: Protocol, model: Bands, device: torch.device
    ) -> None:
        self.scenes, self.protocol, self.model, self.device = scenes, protocol, model, device
        for scene in scenes:
            check_fit(scene.source, scene.raw_SHW.shape, protocol, model)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        return scene_pair(self.scenes[index], self.protocol, self.model, self.device)

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))


def prepared_file(data: DataConfig, name: str) -> Prepared:
    """Return the prepared file `<source>/<name>.h5`, checked and unread; raise `UserError`."""
    return read_prepared(Path(data.source) / f"{name}.h5")


class StoredPairs(Sequence[Pair]):
    """Every image of some prepared files, read one by one; serves as patches and as scenes."""

    def __init__(
        self,
        files: Sequence[Prepared],
        protocol: Protocol,
        model: Bands,
        device: torch.device,
    ) -> None:
        """Raise `UserError` for files whose ratio or bands do not fit protocol and model."""
        self.files, self.ratio, self.device = files, protocol.ratio, device
        for file in files:
            found = (file.ratio, file.shape_SHW[0], file.msi_bands)
            expected = (protocol.ratio, model.hsi_bands, model.msi_bands)
            if found != expected:
                raise UserError(
                    f"{file.path}: found ratio {found[0]}, {found[1]} bands and {found[2]} MSI "
                    f"bands, expected {expected[0]}, {expected[1]} and {expected[2]} as protocol "
                    f"{protocol.name} and model say; choose other files or change these"
                )
        self.images = [(file, i) for file in files for i in range(file.count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override]
        return self.batch([index])

    def __iter__(self) -> Iterator[Pair]:
        return (self[i] for i in range(len(self)))

    def names(self) -> list[str]:
        """Return a name for every image: its file's, with a number where that holds several."""
        return [
            file.path.stem if file.count == 1 else f"{file.path.stem}_{i:05d}"
            for file, i in self.images
        ]

    def windows(self, seed: int, epoch: int) -> Sequence[int]:
        """Return the images of an epoch: all of them."""
        return range(len(self))

    def batch(self, indices: Sequence[int]) -> Pair:
        """Return the images with these indices as one batch; they must have one size."""
        items = []
        for index in indices:
            file, image = self.images[index]
            stored = file.pair(image)
            reference = file.scene(image).cube()
            items.append((stored.msi_MHW, stored.lms_SHW, stored.lr_hsi_Shw, reference))
        arrays = (np.stack(parts) for parts in zip(*items, strict=True))
        return Pair(*(torch.from_numpy(array).to(self.device) for array in arrays))
