"""A quick look at a fused image beside its inputs."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from feinfn.data.images import colours, rgb_bands
from mhiflab.render.figures.images.fused import fused_figure
from mhiflab.render.figures.style import Panel

WHITE = 0.99
"""Share of the fused image's values that are below white."""


def quick_look(
    lr_hsi_Shw: np.ndarray,
    msi_MHW: np.ndarray,
    fused_SHW: np.ndarray,
    wavelengths_nm: np.ndarray | None,
    msi_order: Sequence[str] = (),
    reference_SHW: np.ndarray | None = None,
) -> Figure:
    """Draw LR-HSI, MSI and fused HSI in pseudo-RGB; also a given reference and the errors.

    HSIs share one white, and the MSI has its own, whose bands are found by name, else as for
    ascending wavelengths. Errors are absolute, averaged over bands. Pixels without data are NaN,
    and drawn black, or white among errors.
    """

    def white(values: np.ndarray) -> float:
        return max(float(np.nanquantile(values, WHITE)), 1e-9)

    bands = rgb_bands(len(fused_SHW), wavelengths_nm)
    named = len(msi_order) == len(msi_MHW) and {"R", "G", "B"} <= set(msi_order)
    msi_bands = [msi_order.index(c) for c in "RGB"] if named else rgb_bands(len(msi_MHW), None)
    msi, hsi_white = msi_MHW[msi_bands], white(fused_SHW[bands])
    error = None if reference_SHW is None else np.abs(fused_SHW - reference_SHW).mean(axis=0)
    panels = [
        Panel("LR-HSI", colours(lr_hsi_Shw[bands], hsi_white)),
        Panel("MSI", colours(msi, white(msi))),
        Panel("Fused", colours(np.nan_to_num(fused_SHW[bands]), hsi_white), error),
    ]
    if reference_SHW is not None:
        shown = np.nan_to_num(reference_SHW[bands])
        panels.append(Panel("Reference", colours(shown, hsi_white)))
    return fused_figure(panels)
