"""Changes at one frequency or one pixel, and their effect on the whole image.

Legend: B batch, C channels, H W image size, S bands.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from feinfn.analysis.spectra import check_place
from feinfn.errors import require
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.network import fuse
from feinfn.protocols.simulate import Inputs

Place = Literal["code", "amplitude", "phase", "spatial", "fourier"]


def scale_conjugates(x_BCHW: Tensor, row: int, col: int, factor: float) -> Tensor:
    """Return a map of frequencies, such as amplitudes, with a bin and its conjugate times `factor`.

    Rows and columns count as in `fft2`.
    """
    height, width = x_BCHW.shape[-2:]
    check_place((row, col), (height, width), "row, col")
    changed = x_BCHW.clone()
    for place in {(row, col), (-row % height, -col % width)}:
        changed[..., *place] *= factor
    return changed


def change_bin(x_CHW: Tensor, row: int, col: int, factor: float) -> Tensor:
    """Return a real image with one bin of its spectrum and the conjugate bin times `factor`.

    The change is a plane wave over the whole image.
    """
    spectrum = scale_conjugates(torch.fft.fft2(x_CHW), row, col, factor)
    return torch.fft.ifft2(spectrum).real.contiguous()


def change_pixel(x_CHW: Tensor, row: int, col: int, factor: float) -> Tensor:
    """Return the image with one pixel times `factor`."""
    check_place((row, col), x_CHW.shape[-2:], "row, col")
    changed = x_CHW.clone()
    changed[..., row, col] *= factor
    return changed


def _module_at(model: FeINFN, place: Place) -> tuple[nn.Module, bool]:
    """Return the module with its output at `place`, and True if its channels come last."""
    fourier = model.fourier_fusion
    parts: dict[Place, tuple[nn.Module | None, bool]] = {
        "code": (model.spectral_encoder, False),
        "amplitude": (fourier and fourier.amplitude, True),
        "phase": (fourier and fourier.phase, True),
        "spatial": (model.spatial_fusion, True),
        "fourier": (fourier, True),
    }
    module, last = parts[place]
    available = ", ".join(name for name, (part, _) in parts.items() if part is not None)
    require(module is not None, "place", place, f"a part that this network has: {available}")
    assert module is not None
    return module, last


def effect_of(
    model: FeINFN, inputs: Inputs, place: Place, change: Callable[[Tensor], Tensor]
) -> np.ndarray:
    """Return the mean absolute change over bands of the fused image, [H, W], float32.

    `change` maps the network's values at `place`, [B, C, H, W], to values of the same shape. Places
    are the LR code, the fused amplitude or phase (bins as `fft2` orders them, unless
    model.spectrum_origin is centre), and the two fused latent maps. The network itself is not
    modified. Raises `UserError` for a part that the network lacks.
    """
    module, channels_last = _module_at(model, place)

    def altered(_: nn.Module, __: tuple, output: Tensor) -> Tensor:
        if not channels_last:
            return change(output)
        return change(output.movedim(-1, 1)).movedim(1, -1)

    before = fuse(model, inputs)
    handle = module.register_forward_hook(altered)
    try:
        after = fuse(model, inputs)
    finally:
        handle.remove()
    return (after - before)[0].abs().mean(dim=0).float().cpu().numpy()


def reach(change_HW: np.ndarray) -> float:
    """Return the share of the image over which the energy of a change is spread.

    It is (sum e)^2 / (N sum e^2) for e = change^2: 1/N for one pixel, 2/3 for a plane wave, 1 for
    an even change, and 0 for none.
    """
    energy = np.asarray(change_HW, np.float64) ** 2
    total = (energy**2).sum()
    return float(energy.sum() ** 2 / (energy.size * total)) if total else 0.0
