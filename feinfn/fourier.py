"""Fusion of the LR latent code with the HR guide in the Fourier domain.

Legend: B batch, F features, G guide features, L latent bands, h w LR size, H W HR size.
"""

import torch
from torch import Tensor, nn

from feinfn.config import ModelConfig
from feinfn.coords import Geometry
from feinfn.implicit import ImplicitMLP
from feinfn.phase import PhaseNetwork
from feinfn.spectrum import polar
from feinfn.strips import Strips, slices


class FourierFusion(nn.Module):
    """Fusion of amplitude and phase, and the inverse transform of the result.

    Always float32 or wider: amplitudes grow with the image's area, beyond half precision.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.shifted = config.spectrum_origin == "centre"
        self.inverse = config.inverse
        feat, guide, latent = config.feat_dim, config.guide_dim, config.latent_bands
        self.amplitude = ImplicitMLP(config, [feat], guide) if config.fuse_amplitude else None
        self.phase = PhaseNetwork(config) if config.fuse_phase else None
        self.guide_amplitude = None if config.fuse_amplitude else nn.Linear(guide, latent)
        self.guide_phase = None if config.fuse_phase else nn.Linear(guide, latent)

    def forward(
        self, feat_BFhw: Tensor, guide_BGHW: Tensor, where: Geometry, strips: Strips
    ) -> Tensor:
        """Return the fused latent map [B, H, W, L]."""
        with torch.autocast(feat_BFhw.device.type, enabled=False):
            wide = torch.promote_types(feat_BFhw.dtype, torch.float32)
            feat = polar(feat_BFhw.to(wide), self.shifted, None)
            # A memory budget makes the guide give its place to its phase: nothing reads it later.
            guide = polar(guide_BGHW.to(wide), self.shifted, strips.channels)
            # Each part is dropped as soon as it is used.
            amplitude = self._fuse_amplitude(next(feat), next(guide), where, strips)
            phase = self._fuse_phase(next(feat), next(guide), where, strips)
            if torch.is_grad_enabled():
                return self._image(amplitude, phase).movedim(1, -1)
            groups = slices(amplitude.shape[-1], strips.channels or 8)
            parts = [self._image(amplitude[..., g], phase[..., g]) for g in groups]
            return torch.cat(parts, dim=1).movedim(1, -1)

    def _fuse_amplitude(
        self, feat_BhwF: Tensor, guide_BHWG: Tensor, where: Geometry, strips: Strips
    ) -> Tensor:
        if self.amplitude is not None:
            return self.amplitude([feat_BhwF], guide_BHWG, where, strips.queries)
        assert self.guide_amplitude is not None
        return self.guide_amplitude(guide_BHWG)

    def _fuse_phase(
        self, feat_BhwF: Tensor, guide_BHWG: Tensor, where: Geometry, strips: Strips
    ) -> Tensor:
        if self.phase is not None:
            return self.phase(feat_BhwF, guide_BHWG, where, strips)
        assert self.guide_phase is not None
        return self.guide_phase(guide_BHWG)

    def _image(self, amplitude_BHWL: Tensor, phase_BHWL: Tensor) -> Tensor:
        """Return the inverse transform [B, L, H, W]."""
        real, imaginary = amplitude_BHWL * phase_BHWL.cos(), amplitude_BHWL * phase_BHWL.sin()
        spectrum = torch.complex(real, imaginary).movedim(-1, 1)
        if self.shifted:
            spectrum = torch.fft.ifftshift(spectrum, dim=(-2, -1))
        image = torch.fft.ifft2(spectrum)
        return image.abs() if self.inverse == "modulus" else image.real
