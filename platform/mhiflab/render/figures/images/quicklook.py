"""A quick look: a fused image beside what it was fused from."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from feinfn.data.images import colours, rgb_bands
from mhiflab.render.figures.images.fused import WHITE, Fused, fused_figure


def _msi_bands(bands: int, order: Sequence[str]) -> list[int]:
    """Return red, green and blue by name, else as bands that ascend with wavelength."""
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
    """Draw LR-HSI, MSI and fused HSI in pseudo-RGB; with a reference it too, and the errors.

    HSIs share their white, the MSI has its own; errors are absolute, averaged over bands.
    """

    def white(chosen: np.ndarray) -> float:
        return max(float(np.quantile(chosen, WHITE)), 1e-9)

    bands = rgb_bands(len(fused_SHW), wavelengths_nm)
    msi = msi_MHW[_msi_bands(len(msi_MHW), msi_order)]
    common = white(fused_SHW[bands])
    shown = {
        "LR-HSI": Fused(colours(lr_hsi_Shw[bands], common)),
        "MSI": Fused(colours(msi, white(msi))),
    }
    error = None
    if reference_SHW is not None:
        error = np.abs(fused_SHW - reference_SHW).mean(axis=0)
    shown["Fused"] = Fused(colours(fused_SHW[bands], common), error)
    if reference_SHW is not None:
        shown["Reference"] = Fused(colours(reference_SHW[bands], common))
    return fused_figure(shown)
