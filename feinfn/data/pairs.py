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
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from feinfn.config import DataConfig
from feinfn.data.images import image_of
from feinfn.data.readers.formats import read_prepared
from feinfn.data.readers.known import Prepared
from feinfn.data.scene import Scene, scene_of
from feinfn.data.source import check_fit
from feinfn.errors import UserError
from feinfn.physics import Bands
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.simulate import Inputs, Pair, lr_pixels_with_data, simulate, spatial, upsample
from feinfn.region import filled, fused_valid, in_all


def has_reference(scene: Scene) -> bool:
    """Return True if the scene's cube is as fine as its MSI."""
    return scene.msi_MHW is None or scene.msi_MHW.shape[1:] == scene.raw_SHW.shape[1:]


def with_reference(scene: Scene, protocol: Protocol) -> Scene:
    """Return the scene with its MSI degraded to the cube's grid if it is finer.

    Pixels of which that MSI would be made of some without data have none. Raises `UserError` if the
    grids differ by another ratio than the protocol's.
    """
    if has_reference(scene):
        return scene
    msi, valid = torch.tensor(scene.msi_MHW)[None], scene.valid_HW
    _check_finer(scene, protocol)
    if valid is not None:
        finer = fused_valid(None, valid, msi.shape[2:])
        valid = valid & lr_pixels_with_data(protocol, finer)
    return replace(scene, msi_MHW=spatial(protocol)(msi)[0].numpy(), valid_HW=valid)


def _check_finer(scene: Scene, protocol: Protocol) -> None:
    assert scene.msi_MHW is not None, "only real pairs have a finer MSI"
    (height, width), msi_size = scene.raw_SHW.shape[1:], scene.msi_MHW.shape[1:]
    if msi_size != (height * protocol.ratio, width * protocol.ratio):
        raise UserError(
            f"{scene.source}: found an MSI of {msi_size[0]}x{msi_size[1]} pixels beside a cube of "
            f"{height}x{width}, expected {protocol.ratio} times as many along each axis, the ratio "
            f"of protocol {protocol.name}; use a protocol of the pair's ratio"
        )


def observed_inputs(scene: Scene, protocol: Protocol, device: torch.device) -> "NamedInputs":
    """Return a real pair without reference as it was measured, a batch of one.

    Raises `UserError` if the grids differ by another ratio than the protocol's, and if no pixel has
    data.
    """
    _check_finer(scene, protocol)
    assert scene.msi_MHW is not None, "only real pairs have a finer MSI"
    valid = scene.valid_HW
    if valid is not None and not valid.any():
        raise UserError(
            f"{scene.source}: found no pixel with data in both cube and MSI, expected some; choose "
            "another scene or window"
        )
    finer = None if valid is None else fused_valid(None, valid, scene.msi_MHW.shape[1:])
    lr_hsi = torch.from_numpy(filled(scene.cube(), valid))[None].to(device)
    msi = torch.tensor(filled(scene.msi_MHW, finer))[None].to(device)
    inputs = Inputs(msi, upsample(lr_hsi, protocol), lr_hsi)
    return NamedInputs(scene.name, inputs, scene.wavelengths_nm, True, finer, valid, True)


def simulated_inputs(
    scene: Scene, protocol: Protocol, device: torch.device, noise_seed: int | None = None
) -> "NamedInputs":
    """Return a scene's simulated inputs and reference, a batch of one.

    Inputs are made of a scene whose pixels without data hold the nearest with data, so that what
    lies in a gap is nowhere to be seen; in the reference they are 0. The noise's seed depends on
    the scene's name alone, if none is given, so that every run sees the same noise. Raises
    `UserError` if scene and protocol do not fit each other, and if no pixel of the result has data.
    """
    scene = with_reference(scene, protocol)
    valid, cube_SHW, msi_MHW = scene.valid_HW, scene.cube(), scene.msi_MHW
    if noise_seed is None:
        noise_seed = int.from_bytes(hashlib.sha256(scene.name.encode()).digest()[:4], "big")
    pair = simulate(
        torch.from_numpy(filled(cube_SHW, valid))[None].to(device),
        scene.wavelengths_nm,
        protocol,
        scene.source,
        msi_BMHW=None if msi_MHW is None else torch.tensor(filled(msi_MHW, valid))[None].to(device),
        noise_seed=noise_seed,
        valid_HW=valid,
    )
    if valid is not None:
        pair = replace(pair, reference_BSHW=torch.from_numpy(cube_SHW)[None].to(device))
    measured, lr_valid = msi_MHW is not None, lr_pixels_with_data(protocol, valid)
    image = NamedInputs(scene.name, pair, scene.wavelengths_nm, measured, valid, lr_valid)
    if image.valid is not None and not image.valid.any():
        raise UserError(
            f"{scene.source}: found pixels without data within the PSF ({protocol.psf_px} px, "
            f"protocol {protocol.name}) of every pixel of the LR-HSI, expected some without; "
            "choose another scene or window"
        )
    return image


@dataclass(frozen=True)
class NamedInputs:
    """One image to be fused, and its reference if it has one; a batch of one."""

    name: str
    inputs: Inputs
    """A `Pair` if there is a reference."""
    wavelengths_nm: np.ndarray | None = None
    measured_msi: bool = False
    msi_valid_HW: np.ndarray | None = None
    """False for pixels without data in MSI and reference; None if every pixel has data."""
    lr_valid_hw: np.ndarray | None = None
    """False for pixels of the LR-HSI whose PSF touches a pixel without data; None if none does."""
    filled_apart: bool = False
    """True if gaps of MSI and LR-HSI were filled one by one, so that both need not agree there."""

    @property
    def reference(self) -> Tensor | None:
        """The reference [S, H, W], 0 where it has none itself; None for a real pair without one."""
        return self.inputs.reference_BSHW[0] if isinstance(self.inputs, Pair) else None

    @cached_property
    def valid(self) -> Tensor | None:
        """Pixels of the fused image with data, [H, W], see `fused_valid`; None if all have."""
        size = tuple(self.inputs.msi_BMHW.shape[2:])
        valid = fused_valid(self.msi_valid_HW, self.lr_valid_hw, size)
        return None if valid is None else torch.from_numpy(valid).to(self.inputs.msi_BMHW.device)


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

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> NamedInputs:  # type: ignore[override]
        scene = self.scenes[index]
        observed = self.observed and not has_reference(scene)
        make = observed_inputs if observed else simulated_inputs
        return make(scene, self.protocol, self.device)


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
        arrays, valid, lr_valid = stored_pair(file, image)
        return NamedInputs(
            name, self._pair([arrays]), msi_valid_HW=valid, lr_valid_hw=lr_valid, filled_apart=True
        )

    def windows(self, seed: int, epoch: int) -> Sequence[int]:
        """Return the indices of an epoch's images: all of them."""
        return range(len(self))

    def batch(self, indices: Sequence[int]) -> Pair:
        """Return the images with these indices as one batch; they must have one size.

        Raises `UserError` for pixels without data, on which nothing can be trained.
        """
        items = []
        for index in indices:
            arrays, *masks = stored_pair(*self.images[index])
            if any(mask is not None for mask in masks):
                file, image = self.images[index]
                raise UserError(
                    f"{file.path}: found pixels without data in image {image}, expected none in "
                    "training; export patches, which hold none (--patch)"
                )
            items.append(arrays)
        return self._pair(items)

    def _pair(self, items: Sequence[tuple[np.ndarray, ...]]) -> Pair:
        arrays = (np.stack(parts) for parts in zip(*items, strict=True))
        return Pair(*(torch.from_numpy(array).to(self.device) for array in arrays))


Stored = tuple[tuple[np.ndarray, ...], np.ndarray | None, np.ndarray | None]
"""Arrays of a prepared image, and the masks of MSI and LR-HSI as `NamedInputs` has them."""


def stored_pair(file: Prepared, index: int) -> Stored:
    """Read MSI, upsampled LR-HSI, LR-HSI and reference as stored, [C, H, W] float32, and masks.

    Nothing is simulated, clipped or reordered. Pixels without data of an input hold the nearest
    with data; those of the MSI have none in the reference either. Raises `UserError` for NaN that
    the file does not declare as no data.
    """
    msi, lms, lr_hsi = (image_of(file.image(index, key)) for key in ("RGB", "HSI_up", "LRHSI"))
    scene = scene_of(file.image(index))
    inputs = (filled(x.values_SHW, x.valid_HW) for x in (msi, lms, lr_hsi))
    lms_valid, lr_valid = lms.valid_HW, lr_hsi.valid_HW
    ground = fused_valid(None, lr_valid, lms.values_SHW.shape[1:])
    if lms_valid is not None and ground is not None:
        # The ground of an LR pixel without data is no gap of the MSI.
        lms_valid = lms_valid | ~ground
    return (*inputs, scene.cube()), in_all(msi.valid_HW, lms_valid, scene.valid_HW), lr_valid
