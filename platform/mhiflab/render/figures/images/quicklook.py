"""A quick look at a fused image beside its inputs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from feinfn.data.images import colours, rgb_bands
from mhiflab.render.figures.images.fused import Fused, fused_figure

WHITE = 0.99
"""Share of the fused image's values that are below white."""


def _msi_bands(bands: int, order: Sequence[str]) -> list[int]:
    """Return the bands of red, green and blue by name, else as for ascending wavelengths."""
    named = len(order) == bands and {"R", "G", "B"} <= set(order)
    return [order.index(name) for name in "RGB"] if named else rgb_bands(bands, None)


def quick_look(
    lr_hsi_Shw: np.ndarray,
    msi_MHW: np.ndarray,
    fused_SHW: np.ndarray,
    wavelengths_nm: np.ndarray | None,
    msi_order: Sequence[str] = (),
    reference_SHW: np.ndarray | None = None,
) -> Figure:
    """Draw LR-HSI, MSI and fused HSI in pseudo-RGB; also a given reference and the errors.

    HSIs share one white, and the MSI has its own. Errors are absolute, averaged over bands.
    """

    def white(values: np.ndarray) -> float:
        return max(float(np.quantile(values, WHITE)), 1e-9)

    bands = rgb_bands(len(fused_SHW), wavelengths_nm)
    msi = msi_MHW[_msi_bands(len(msi_MHW), msi_order)]
    hsi_white = white(fused_SHW[bands])
    images = {
        "LR-HSI": Fused(colours(lr_hsi_Shw[bands], hsi_white)),
        "MSI": Fused(colours(msi, white(msi))),
    }
    error = None
    if reference_SHW is not None:
        error = np.abs(fused_SHW - reference_SHW).mean(axis=0)
    images["Fused"] = Fused(colours(fused_SHW[bands], hsi_white), error)
    if reference_SHW is not None:
        images["Reference"] = Fused(colours(reference_SHW[bands], hsi_white))
    return fused_figure(images)
