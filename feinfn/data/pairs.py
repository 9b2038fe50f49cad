"""Pairs: the inputs and references of whole scenes, simulated, measured or stored.

A real pair of sensors has a measured MSI. If the MSI lies on the cube's own grid, the cube is the
reference and only the LR-HSI is simulated. If it is finer, the cube itself is the LR-HSI and no
reference exists: training and validation degrade both images by the ratio, so that the cube becomes
the reference (Wald's protocol), and testing fuses them as they are.

Prepared files hold stored inputs and references; nothing is simulated.

Legend: B batch, S bands, M MSI bands, h w LR size, H W HR size.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feinfn.config import Bands, DataConfig
from feinfn.data.readers.formats import read_prepared
from feinfn.data.readers.known import Prepared
from feinfn.data.readers.numbers import check_finite
from feinfn.data.scene import Scene, scene_of
from feinfn.data.source import check_fit
from feinfn.errors import UserError
from feinfn.protocols.simulate import Inputs, Pair, Protocol, simulate, upsample


def has_reference(scene: Scene) -> bool:
    """Return True if the scene's cube is as fine as its MSI."""
    return scene.msi_MHW is None or scene.msi_MHW.shape[1:] == scene.raw_SHW.shape[1:]


def with_reference(scene: Scene, protocol: Protocol) -> Scene:
    """Return the scene with its MSI degraded to the cube's grid if it is finer.

    Raises `UserError` if the grids differ by another ratio than the protocol's.
    """
    if has_reference(scene):
        return scene
    msi = torch.tensor(scene.msi_MHW)[None]
    _check_finer(scene, protocol)
    return replace(scene, msi_MHW=protocol.spatial()(msi)[0].numpy())


def _check_finer(scene: Scene, protocol: Protocol) -> None:
    assert scene.msi_MHW is not None, "only real pairs have a finer MSI"
    (height, width), msi_size = scene.raw_SHW.shape[1:], scene.msi_MHW.shape[1:]
    if msi_size != (height * protocol.ratio, width * protocol.ratio):
        raise UserError(
            f"{scene.source}: found an MSI of {msi_size[0]}x{msi_size[1]} pixels beside a cube of "
            f"{height}x{width}, expected {protocol.ratio} times as many along each axis, the ratio "
            f"of protocol {protocol.name}; use a protocol of the pair's ratio"
        )


def observed_inputs(scene: Scene, protocol: Protocol, device: torch.device) -> Inputs:
    """Return a real pair without reference as it was measured, a batch of one.

    Raises `UserError` if the grids differ by another ratio than the protocol's.
    """
    _check_finer(scene, protocol)
    scene.check_whole()
    lr_hsi = torch.from_numpy(scene.cube())[None].to(device)
    msi = torch.tensor(scene.msi_MHW)[None].to(device)
    return Inputs(msi, upsample(lr_hsi, protocol), lr_hsi)


def scene_pair(scene: Scene, protocol: Protocol, model: Bands, device: torch.device) -> Pair:
    """Return a scene's simulated inputs and reference, a batch of one.

    Raises `UserError` if scene, protocol and model do not fit each other.
    """
    check_fit(scene.source, scene.raw_SHW.shape, protocol, model)
    scene.check_whole()
    scene = with_reference(scene, protocol)
    cube = torch.from_numpy(scene.cube())[None].to(device)
    msi = None if scene.msi_MHW is None else torch.tensor(scene.msi_MHW)[None].to(device)
    # The seed depends on the scene's name only, so that every run sees the same noise.
    seed = int.from_bytes(hashlib.sha256(scene.name.encode()).digest()[:4], "big")
    return simulate(
        cube, scene.wavelengths_nm, protocol, scene.source, msi_BMHW=msi, noise_seed=seed
    )


@dataclass(frozen=True)
class NamedInputs:
    """One image to be fused, and its reference if it has one; a batch of one."""

    name: str
    inputs: Inputs
    """A `Pair` if there is a reference."""
    wavelengths_nm: np.ndarray | None = None
    measured_msi: bool = False

    @property
    def reference(self) -> Tensor | None:
        """The reference [S, H, W]; None for a real pair without one."""
        return self.inputs.reference_BSHW[0] if isinstance(self.inputs, Pair) else None


class Images(Sequence[NamedInputs]):
    """Images to be fused under one protocol, each made when it is asked for."""

    protocol: Protocol

    def __iter__(self) -> Iterator[NamedInputs]:
        # Not by the first IndexError, which could come from making an image.
        return (self[i] for i in range(len(self)))


class ScenePairs(Images):
    """Scenes that are simulated at each access, so that none stays on the device.

    If `observed`, real pairs without reference stay as they were measured; otherwise both images
    are degraded, so that the cube becomes the reference.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        protocol: Protocol,
        model: Bands,
        device: torch.device,
        observed: bool = False,
    ) -> None:
        self.scenes, self.protocol, self.model, self.device = scenes, protocol, model, device
        self.observed = observed
        for scene in scenes:
            check_fit(scene.source, scene.raw_SHW.shape, protocol, model)
            scene.check_whole()

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> NamedInputs:  # type: ignore[override]
        scene = self.scenes[index]
        inputs: Inputs
        if self.observed and not has_reference(scene):
            inputs = observed_inputs(scene, self.protocol, self.device)
        else:
            inputs = scene_pair(scene, self.protocol, self.model, self.device)
        return NamedInputs(scene.name, inputs, scene.wavelengths_nm, scene.msi_MHW is not None)


def prepared_file(data: DataConfig, name: str) -> Prepared:
    """Return the prepared file `<source>/<name>.h5`, checked but not read.

    Raises `UserError` if it is no prepared file.
    """
    return read_prepared(Path(data.source) / f"{name}.h5")


class StoredPairs(Images):
    """Every image of several prepared files, read one by one; serves as patches and as scenes."""

    def __init__(
        self,
        files: Sequence[Prepared],
        protocol: Protocol,
        model: Bands,
        device: torch.device,
    ) -> None:
        """Raise `UserError` for files whose ratio or bands do not fit protocol and model."""
        self.files, self.protocol, self.device = files, protocol, device
        for file in files:
            stored = (file.ratio, file.shape_SHW[0], file.msi_bands)
            expected = (protocol.ratio, model.hsi_bands, model.msi_bands)
            if stored != expected:
                raise UserError(
                    f"{file.path}: found ratio {stored[0]}, {stored[1]} bands and {stored[2]} MSI "
                    f"bands, expected {expected[0]}, {expected[1]} and {expected[2]} as protocol "
                    f"{protocol.name} and model say; choose other files or change these"
                )
        self.images = [(file, i) for file in files for i in range(file.count)]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> NamedInputs:  # type: ignore[override]
        file, image = self.images[index]
        name = file.path.stem if file.count == 1 else f"{file.path.stem}_{image:05d}"
        return NamedInputs(name, self.batch([index]))

    def windows(self, seed: int, epoch: int) -> Sequence[int]:
        """Return the indices of an epoch's images: all of them."""
        return range(len(self))

    def batch(self, indices: Sequence[int]) -> Pair:
        """Return the images with these indices as one batch; they must have one size."""
        items = [stored_pair(*self.images[index]) for index in indices]
        arrays = (np.stack(parts) for parts in zip(*items, strict=True))
        return Pair(*(torch.from_numpy(array).to(self.device) for array in arrays))


def stored_pair(file: Prepared, index: int) -> tuple[np.ndarray, ...]:
    """Read MSI, upsampled LR-HSI, LR-HSI and reference as stored, [C, H, W] float32.

    Nothing is simulated, clipped or reordered. Raises `UserError` for NaN.
    """
    inputs = []
    for key in ("RGB", "HSI_up", "LRHSI"):
        inputs.append(file.image(index, key).load(()))
        check_finite(inputs[-1], f"{file.path}: {key}[{index}]")
    return (*inputs, scene_of(file.image(index)).cube())
