"""The problem of a classical method: two images and the protocol that made them of one scene.

Legend: S bands, M MSI bands, C any channels, h w LR size, H W HR size, N = H * W, n = h * w.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from feinfn.errors import UserError
from feinfn.protocols.aligned import cubic_weights
from feinfn.protocols.protocol import Protocol, check_ratio
from feinfn.protocols.simulate import lr_pixels_with_data, spatial, upsample
from feinfn.region import filled, in_all


@dataclass(frozen=True)
class Problem:
    """Fusion of one LR-HSI with one MSI under a protocol; all arrays are float64."""

    lr_hsi_Shw: np.ndarray
    msi_MHW: np.ndarray
    protocol: Protocol
    wavelengths_nm: np.ndarray | None = None
    lr_valid_hw: np.ndarray | None = None
    """False for LR pixels without data, whose numbers stand for none; None if all have."""
    msi_valid_HW: np.ndarray | None = None
    """The same for the MSI."""

    def __post_init__(self) -> None:
        for name, x in (("LR-HSI", self.lr_hsi_Shw), ("MSI", self.msi_MHW)):
            if x.ndim != 3 or 0 in x.shape or not np.isfinite(x).all():
                raise UserError(
                    f"{name}: found shape {x.shape} or numbers that are not finite, expected "
                    "[bands, rows, columns] of finite reflectances"
                )
        bands, expected = len(self.msi_MHW), len(self.protocol.msi_order)
        if bands != expected:
            raise UserError(
                f"MSI: found {bands} bands, expected {expected}, as protocol {self.protocol.name} "
                "has; give the MSI it makes or use another protocol"
            )
        check_ratio(self.lr_hsi_Shw.shape[1:], self.size, self.protocol.ratio, "MSI")

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the MSI."""
        return (self.msi_MHW.shape[1], self.msi_MHW.shape[2])

    def lms(self) -> np.ndarray:
        """Return the LMS [S, H, W]: the start of learned models, which every fusion should beat."""
        return _numpy(upsample(_torch(self.lr_hsi_Shw), self.protocol))

    def degrade(self, x_CHW: np.ndarray) -> np.ndarray:
        """Return every channel after PSF and sampling of the protocol, [C, h, w]."""
        return _numpy(spatial(self.protocol)(_torch(x_CHW)))

    def adjoint(self, y_Chw: np.ndarray) -> np.ndarray:
        """Return the adjoint of `degrade`, [C, H, W]."""
        return _numpy(spatial(self.protocol).adjoint(_torch(y_Chw), self.size))

    def interpolate(self, y_Chw: np.ndarray) -> np.ndarray:
        """Return channels [C, H, W] interpolated from the true places of the protocol's LR pixels.

        See `feinfn.protocols.aligned`.
        """
        rows, cols = (cubic_weights(n, self.protocol) for n in self.lr_hsi_Shw.shape[1:])
        return np.asarray(rows @ y_Chw @ cols.T)

    @cached_property
    def kept_hw(self) -> np.ndarray | None:
        """The LR pixels that fits use: with data, their PSF on pixels of the MSI with data alone.

        None stands for all. Raises `UserError` if there is none.
        """
        kept = in_all(self.lr_valid_hw, lr_pixels_with_data(self.protocol, self.msi_valid_HW))
        if kept is not None and not kept.any():
            raise UserError(
                "images: found no LR pixel with data whose PSF touches pixels of the MSI with data "
                "alone, expected some to fit on; choose images with fewer gaps"
            )
        return kept

    def samples(self, x_Chw: np.ndarray) -> np.ndarray:
        """Return the LR pixels that fits use, [C, n]."""
        return x_Chw.reshape(len(x_Chw), -1) if self.kept_hw is None else x_Chw[:, self.kept_hw]

    def pixels(self, x_CHW: np.ndarray) -> np.ndarray:
        """Return the pixels of the MSI's grid with data, [C, N]."""
        valid = self.msi_valid_HW
        return x_CHW.reshape(len(x_CHW), -1) if valid is None else x_CHW[:, valid]

    @cached_property
    def low_msi(self) -> np.ndarray:
        """The MSI degraded to the LR-HSI's size by its PSF and sampling, [M, h, w]."""
        return self.degrade(self.msi_MHW)

    @cached_property
    def response(self) -> np.ndarray:
        """The protocol's SRF [M, S]; for a measured MSI, the best non-negative matrix.

        That matrix is the least squares fit from the LR-HSI's spectra to the degraded MSI.
        """
        bands = len(self.lr_hsi_Shw)
        if self.protocol.srf != "measured":
            return self.protocol.response(bands, self.wavelengths_nm)
        # Imported here, because it takes every command a quarter of a second.
        from scipy.optimize import nnls

        spectra_nS = self.samples(self.lr_hsi_Shw).T
        return np.stack([nnls(spectra_nS, y_n)[0] for y_n in self.samples(self.low_msi)])

    @cached_property
    def prediction(self) -> tuple[np.ndarray, np.ndarray]:
        """The regression of the LR-HSI on the degraded MSI: gains [S, M] and constants [S]."""
        y_Sn, x_Mn = self.samples(self.lr_hsi_Shw), self.samples(self.low_msi)
        ones_1n = np.ones((1, x_Mn.shape[1]))
        fit = np.linalg.lstsq(np.concatenate([x_Mn, ones_1n]).T, y_Sn.T, rcond=None)[0]
        return fit[:-1].T, fit[-1]


def spread(x_CN: np.ndarray, valid_HW: np.ndarray | None, size_HW: Sequence[int]) -> np.ndarray:
    """Return the pixels with data as an image [C, H, W]; those without hold the nearest with."""
    if valid_HW is None:
        return x_CN.reshape(len(x_CN), *size_HW)
    image_CHW = np.zeros((len(x_CN), *size_HW))
    image_CHW[:, valid_HW] = x_CN
    return filled(image_CHW, valid_HW)


def _torch(x_CHW: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x_CHW))[None]


def _numpy(x_1CHW: Tensor) -> np.ndarray:
    return x_1CHW[0].numpy()
