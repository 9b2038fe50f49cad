"""Fusion of any pair of images by a trained network.

Three lines fuse two files:

    from feinfn import fuse_files
    fused_SHW = fuse_files("best.safetensors", "lr_hsi.mat", "msi.npy", memory_mib=600)

Legend: B batch, S bands, M MSI bands, h w LR size, H W HR size.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from feinfn.data.export import check_written, write_image
from feinfn.data.images import Image
from feinfn.data.readers.array import Options
from feinfn.errors import UserError
from feinfn.files import BEST, file_sha256
from feinfn.inference.inputs import FusionImages, read_images
from feinfn.methods.network import check_gaps, fuse
from feinfn.methods.weights import load_model
from feinfn.protocols.protocol import SUPPORT_PX, Protocol
from feinfn.protocols.simulate import Inputs, enlarge

T = TypeVar("T")

PROTOCOL_FILE = "protocol.json"
"""Name of the protocol's file beside the weights."""

WAVELENGTHS_FILE = "wavelengths_nm.json"
"""Name of the file of band centres beside the weights."""

DEFAULT_UPSAMPLING = "bicubic"
"""Upsampling of the LR-HSI in every named protocol."""


@dataclass(frozen=True)
class Trained:
    """A network and the upsampling of the LR-HSI in its training."""

    model: nn.Module
    upsampling: str
    protocol: Protocol | None
    """Protocol of the training; None for a weights file alone that does not state it."""
    weights_sha256: str = ""
    """SHA-256 of the weights file."""
    wavelengths_nm: tuple[float, ...] | None = None
    """Band centres [S] of the training scenes; None if the network's folder does not state them."""

    @property
    def bands(self) -> tuple[int, int]:
        """Bands of the HSI and of the MSI."""
        config: Any = self.model.config
        return config.hsi_bands, config.msi_bands

    def fuse(self, hsi_BShw: Tensor, msi_BMHW: Tensor, what: str = "hsi and msi") -> Tensor:
        """Return the fused HSI [B, S, H, W] in [0, 1] of images in [0, 1].

        Raises `UserError` if H x W is not a multiple (2 or more) of h x w, or if bands do not fit.
        """
        (height, width), (low_height, low_width) = msi_BMHW.shape[-2:], hsi_BShw.shape[-2:]
        ratio = height // low_height
        if ratio < 2 or (height, width) != (ratio * low_height, ratio * low_width):
            raise UserError(
                f"{what}: found an LR-HSI of {low_height}x{low_width} pixels and an MSI of "
                f"{height}x{width}, expected rows and columns of the MSI one whole number of times "
                "those of the LR-HSI, at least 2; give each file as what it is, and cut both to "
                "the same ground"
            )
        lms_BSHW = enlarge(hsi_BShw, ratio, self.upsampling)
        return fuse(self.model, Inputs(msi_BMHW, lms_BSHW, hsi_BShw))


def load_trained(
    path: Path,
    upsampling: str | None = None,
    device: torch.device | str = "cpu",
    memory_mib: float | None = None,
) -> Trained:
    """Return the network of a weights file, or of a packaged model's folder.

    If `upsampling` is None, the protocol beside the weights decides; without one it is bicubic.
    `memory_mib` bounds the memory of one fusion beyond its inputs. Raises `UserError` for anything
    else, for an upsampling that the network's base has no use for, and for a budget that the
    network cannot keep.
    """
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device: found {str(device)!r}, which cannot be used here "
            f"({str(error).splitlines()[0]}), expected cpu, or cuda on a machine with a GPU"
        ) from None
    weights = path / BEST if path.is_dir() else path
    model = load_model(weights, device, memory_mib)
    protocol = _read_json(
        weights.with_name(PROTOCOL_FILE),
        "a protocol",
        lambda fields: Protocol(**fields | {"msi_order": tuple(fields["msi_order"])}),
    )
    if protocol is None and path.is_dir():
        raise UserError(
            f"{path}: found weights without {PROTOCOL_FILE}, expected a packaged model; name the "
            f"weights themselves ({weights})"
        )
    if protocol is None and model.sensor is not None:
        protocol = model.sensor.protocol
    if upsampling and model.config.base != "lms":
        raise UserError(
            f"found {upsampling!r}, expected none, because the network starts from base "
            f"{model.config.base}, not from the upsampled LR-HSI; leave it out",
            "upsampling",
        )
    mode = upsampling or (protocol.upsampling if protocol else DEFAULT_UPSAMPLING)
    if mode not in SUPPORT_PX:
        raise UserError(f"found {mode!r}, expected one of {', '.join(SUPPORT_PX)}", "upsampling")
    nm = _read_json(
        weights.with_name(WAVELENGTHS_FILE), "wavelengths", lambda values: tuple(map(float, values))
    )
    return Trained(model, mode, protocol, file_sha256(weights), nm)


def _read_json(path: Path, what: str, parse: Callable[[Any], T]) -> T | None:
    """Return the parsed JSON file of a model's folder; None if there is no such file."""
    if not path.is_file():
        return None
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read as {what} ({error}); copy the model's folder again"
        ) from None


def fuse_files(
    weights: str | Path,
    hsi: str | Path,
    msi: str | Path,
    *,
    key: str | None = None,
    msi_key: str | None = None,
    full_scale: float | None = None,
    msi_full_scale: float | None = None,
    bands_axis: int | None = None,
    no_data: float | None = None,
    upsampling: str | None = None,
    memory_mib: float | None = None,
    device: torch.device | str = "cpu",
    msi_bands: Sequence[int] | None = None,
    out: str | Path | None = None,
) -> np.ndarray:
    """Return the fused HSI, float32 [S, H, W] in [0, 1], of an LR-HSI and an MSI from files.

    The MSI's bands are those that `msi_bands` counts from 1, else ordered by the names, colours or
    wavelengths in its file, else taken in the order of the protocol's `msi_order`, e.g. B, G, R for
    `cave_x4` (`load_trained(weights).protocol`). `out` writes the result too, as `write_image`
    does, with wavelengths and georeference. `weights` is a file or folder as in `load_trained`.
    Keys, full scales, `bands_axis` and `no_data` are facts that the files do not state; an MSI
    without full scale takes that of an HSI of the same integer type. `memory_mib` bounds the memory
    of the fusion beyond its inputs. Pixels without data are NaN. Raises `UserError`.
    """
    if out is not None:
        check_written(Path(out))
    trained = load_trained(Path(weights), upsampling, device, memory_mib)
    told = Options(key=key, full_scale=full_scale, bands_axis=bands_axis, no_data=no_data)
    msi_told = replace(told, key=msi_key, full_scale=msi_full_scale, prefix="msi-")
    files = (Path(hsi), told), (Path(msi), msi_told)
    images = read_images(*files, None, trained.bands, trained.protocol, msi_bands)
    fused_SHW = fuse_images(trained, images)
    if out is not None:
        write_image(Path(out), fused_image(fused_SHW, images), "fused")
    return fused_SHW


def fused_image(fused_SHW: np.ndarray, images: FusionImages) -> Image:
    """Return a result of `fuse_images` with wavelengths and georeference of its inputs."""
    return Image(
        fused_SHW,
        images.hsi.wavelengths_nm,
        valid_HW=images.valid,
        array=images.msi.array,
    )


def fuse_images(trained: Trained, images: FusionImages) -> np.ndarray:
    """Return the fused HSI, float32 [S, H, W] in [0, 1], of images from `read_images`.

    Pixels without data in either image are NaN. Raises `UserError` if there are no others.
    """
    what = f"{images.hsi.path} and {images.msi.path}"
    if images.valid is not None and not images.valid.any():
        raise UserError(
            f"{what}: found no pixel with data in both, expected some; choose images whose data "
            "share some ground, or correct what means that there are none (--no-data)"
        )
    device = next(trained.model.parameters()).device
    if images.valid is not None:
        check_gaps(trained.model.config, what)
    lr_hsi, fine = (
        torch.from_numpy(x.values_SHW)[None].to(device) for x in (images.hsi, images.msi)
    )
    try:
        fused_SHW = trained.fuse(lr_hsi, fine, what)[0].cpu().numpy()
        if not np.isfinite(fused_SHW).all():
            raise UserError(
                f"{what}: found NaN in what the network makes of them, expected numbers; its "
                "weights are damaged or its training diverged: use others"
            )
        valid = images.valid
        return fused_SHW if valid is None else np.where(valid, fused_SHW, np.float32(np.nan))
    except RuntimeError as error:
        # On a CPU torch has no error type of its own for this.
        out_of_memory = isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)
        if not out_of_memory:
            raise
        first = str(error).splitlines()[0]
    raise UserError(
        f"{what}: found too little memory to fuse them ({first}); give a budget (--memory MIB), or "
        "cut both images"
    )
