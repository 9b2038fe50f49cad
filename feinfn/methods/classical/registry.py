"""Classical methods behind one interface; a new method takes one file and one entry here.

Legend: S bands, M MSI bands, h w LR size, H W HR size.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from feinfn.errors import require
from feinfn.methods.classical import cnmf, gsa, local, sfim_hs, subspace
from feinfn.methods.classical.problem import Problem
from feinfn.protocols.consistency import What, project
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.simulate import Inputs
from feinfn.region import filled, fused_valid


@dataclass(frozen=True)
class Method:
    """A fusion method that does not learn: it uses the two images alone."""

    name: str
    solve: Callable[[Problem], np.ndarray]
    about: str
    source: str
    consistency: Literal["none", "msi", "both"] = "none"
    """Inputs that the result is projected on before it is clipped, see `Consistent`."""

    def fuse(
        self,
        lr_hsi_Shw: np.ndarray,
        msi_MHW: np.ndarray,
        protocol: Protocol,
        wavelengths_nm: np.ndarray | None = None,
        lr_valid_hw: np.ndarray | None = None,
        msi_valid_HW: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return the fused HSI [S, H, W], float32, clipped to [0, 1]; the same at every call.

        Methods that need the SRF read `wavelengths_nm` [S] if the protocol's is by wavelength.
        Masks are False for pixels without data, which take no part in any fit; what the images
        hold there changes nothing, and the result is NaN where `fused_valid` finds no data.
        Raises `UserError` if images and protocol do not fit, and for consistency with both images
        if there are gaps.
        """
        lr_hsi, msi = (
            np.asarray(filled(x, valid), dtype=np.float64)
            for x, valid in ((lr_hsi_Shw, lr_valid_hw), (msi_MHW, msi_valid_HW))
        )
        problem = Problem(lr_hsi, msi, protocol, wavelengths_nm, lr_valid_hw, msi_valid_HW)
        fused_SHW = self.solve(problem)
        if self.consistency != "none":
            fused_SHW = _projected(fused_SHW, problem, self.consistency)
        fused_SHW = fused_SHW.clip(0, 1).astype(np.float32)
        valid = fused_valid(msi_valid_HW, lr_valid_hw, problem.size)
        return fused_SHW if valid is None else np.where(valid, fused_SHW, np.float32(np.nan))


def _projected(fused_SHW: np.ndarray, problem: Problem, what: What) -> np.ndarray:
    gaps = problem.lr_valid_hw is not None or problem.msi_valid_HW is not None
    expected = "none or msi, because images with gaps do not say what their LR pixels saw"
    require(what == "msi" or not gaps, "model.consistency", what, expected)
    lms, msi, lr_hsi = (
        torch.from_numpy(np.ascontiguousarray(x))[None]
        for x in (fused_SHW, problem.msi_MHW, problem.lr_hsi_Shw)
    )
    inputs = Inputs(msi, lms, lr_hsi)
    return project(lms, inputs, problem.protocol, what, problem.wavelengths_nm)[0].numpy()


CLASSICAL: dict[str, Method] = {
    m.name: m
    for m in [
        Method("bicubic", Problem.lms, "the LR-HSI, upsampled: the input of learned models", "-"),
        Method(
            "gsa",
            gsa.solve,
            "Gram-Schmidt adaptive, all MSI bands substituted together",
            "Aiazzi et al., IEEE TGRS 2007; Selva et al., IEEE JSTARS 2015",
        ),
        Method(
            "sfim_hs",
            sfim_hs.solve,
            "intensity modulation by a sharp band synthesised for every HSI band",
            "Liu, Int. J. Remote Sensing 2000; Selva et al., IEEE JSTARS 2015",
        ),
        Method(
            "local",
            local.solve,
            "regression on all MSI bands around every LR pixel, with gains interpolated between",
            "after Aiazzi et al., IEEE TGRS 2002; Selva et al., IEEE JSTARS 2015; He et al., IEEE "
            "TPAMI 2013",
        ),
        Method(
            "cnmf",
            cnmf.solve,
            "coupled non-negative matrix factorisation with known PSF and SRF",
            "after Yokoya et al., IEEE TGRS 2012",
        ),
        Method(
            "subspace",
            subspace.solve,
            "least squares in a spectral subspace with known PSF and SRF",
            "after Simoes et al., IEEE TGRS 2015",
        ),
    ]
}
"""Every classical method by name."""
