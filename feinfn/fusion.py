"""Implicit fusion of the LR latent code with the HR guide, in space and in the Fourier domain.

Every HR pixel asks its four LR neighbours; a network maps (LR code, guide, offset) of each to L
latent bands and one logit (a vote); the softmax over the four logits blends them. The first linear
layer is linear in its parts, so its LR part is computed on the LR grid, its guide part once per
pixel, and only the sum is made per vote.

Legend: B batch, F features, G guide features, K hidden width, L latent bands, h w LR size,
H W HR size, N = H * W.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.config import ModelConfig
from feinfn.coords import Geometry
from feinfn.errors import UserError

OCTAVES = 2
"""Octaves of the Fourier features of an offset."""


def offset_features(offset_HW2: Tensor, positional: str) -> Tensor:
    """Return the offset (row, column), with its sines and cosines where asked for."""
    if positional != "fourier":
        return offset_HW2
    waves = [offset_HW2 * (torch.pi / 2 * 2**k) for k in range(OCTAVES)]
    return torch.cat([offset_HW2, *(f(w) for w in waves for f in (torch.sin, torch.cos))], dim=-1)


def blend(votes: Sequence[Tensor]) -> Tensor:
    """Return the softmax-weighted mean of [..., L + 1] votes whose last entry is the logit.

    A single vote has no logit and is returned as it is.
    """
    if len(votes) == 1:
        return votes[0]
    stacked = torch.stack(list(votes))
    weight = torch.softmax(stacked[..., -1:], dim=0)
    return (weight * stacked[..., :-1]).sum(dim=0)


class Upsampler(nn.Module):
    """Brings LR codes to HR pixels: once or four times, with the offset where there is one."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.kind = config.upsampling
        self.ratio = config.shuffle_ratio
        if self.kind == "pixel_shuffle":
            self.expand = nn.Linear(channels, channels * self.ratio**2)

    @staticmethod
    def has_offset(config: ModelConfig) -> bool:
        """Return whether HR pixels know their offset from the LR pixel they ask."""
        return config.upsampling in ("implicit", "nearest")

    @staticmethod
    def outputs(config: ModelConfig) -> int:
        """Return the channels of one vote: latent bands, and a logit where votes are weighed."""
        return config.latent_bands + (config.upsampling == "implicit")

    def prepare(self, lr_BhwC: Tensor) -> Tensor:
        """Return the LR codes, rearranged by pixel_shuffle (then already at HR size)."""
        if self.kind != "pixel_shuffle":
            return lr_BhwC
        x = F.pixel_shuffle(self.expand(lr_BhwC).permute(0, 3, 1, 2), self.ratio)
        return x.permute(0, 2, 3, 1)

    def forward(self, lr_BhwK: Tensor, where: Geometry) -> list[tuple[Tensor, Tensor | None]]:
        """Return (LR code at every HR pixel [B, H, W, K], its offset [H, W, 2]) for every vote."""
        if self.kind in ("implicit", "nearest"):
            padded = F.pad(lr_BhwK, (0, 0, 1, 1, 1, 1))
            # index_select: the backward of plain indexing is several times slower on a CPU.
            return [
                (padded.index_select(1, at.row).index_select(2, at.col), at.offset_HW2)
                for at in where.neighbours
            ]
        size = tuple(where.raster_HW2.shape[:2])
        if self.kind == "pixel_shuffle":
            if tuple(lr_BhwK.shape[1:3]) != size:
                raise UserError(
                    f"model.shuffle_ratio: found {self.ratio}, which makes {lr_BhwK.shape[1]}x"
                    f"{lr_BhwK.shape[2]} of the LR-HSI, expected the HR size {size[0]}x{size[1]}"
                )
            return [(lr_BhwK, None)]
        x = F.interpolate(lr_BhwK.permute(0, 3, 1, 2), size=size, mode=self.kind)
        return [(x.permute(0, 2, 3, 1), None)]


class ImplicitMLP(nn.Module):
    """The pointwise network of one branch, evaluated for all votes of all pixels.

    `lr` and `hr` give the channels of the LR parts and of the HR part; the released column order
    [lr[0], hr, lr[1:], offset] is kept, so that released weights fit.
    """

    def __init__(
        self, config: ModelConfig, lr: Sequence[int], hr: int, positional: str = "none"
    ) -> None:
        super().__init__()
        self.positional = positional
        self.upsampler = Upsampler(config, sum(lr))
        offset = 2 + 4 * OCTAVES if positional == "fourier" else 2
        self.columns = [lr[0], hr, *lr[1:], offset * Upsampler.has_offset(config)]
        sizes = [sum(self.columns), *config.mlp_widths, Upsampler.outputs(config)]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(self, lr_BhwC: Sequence[Tensor], hr_BHWG: Tensor, where: Geometry) -> Tensor:
        """Return the fused latent map [B, H, W, L]."""
        weight, bias = self.layers[0].weight, self.layers[0].bias
        assert isinstance(weight, Tensor)
        assert isinstance(bias, Tensor)
        w_lr0, w_hr, *w_lr_rest, w_offset = weight.split(self.columns, dim=1)
        w_lr = torch.cat([w_lr0, *w_lr_rest], dim=1)
        # Linear maps commute with picking and interpolating pixels, so this one is made at LR size.
        lr_BhwK = F.linear(self.upsampler.prepare(torch.cat(list(lr_BhwC), dim=-1)), w_lr)
        hr_BHWK = F.linear(hr_BHWG, w_hr, bias)
        if self.positional == "raster" and w_offset.shape[1]:
            hr_BHWK = hr_BHWK + F.linear(where.raster_HW2, w_offset)
        votes = []
        for x, offset in self.upsampler(lr_BhwK, where):
            x = x + hr_BHWK
            if offset is not None:
                x = x + F.linear(offset_features(offset, self.positional), w_offset)
            for layer in self.layers[1:]:
                x = layer(F.relu(x))
            votes.append(x)
        return blend(votes)


HIGH_PASS = {
    # The released kernel's centre is 1, not 4, so it sums to -3.
    "released": [[0.0, -1, 0], [-1, 1, -1], [0, -1, 0]],
    "laplacian": [[0.0, -1, 0], [-1, 4, -1], [0, -1, 0]],
}


class SpatialFusion(nn.Module):
    """Fusion of features, guide and the features' high-pass in the image domain."""

    kernel: Tensor | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        feat = config.feat_dim
        kernel = HIGH_PASS.get(config.high_pass)
        # A buffer, so that it moves to the device with the model and not in every forward.
        tensor = None if kernel is None else torch.tensor(kernel)
        self.register_buffer("kernel", tensor, persistent=False)
        parts = [feat] if kernel is None else [feat, feat]
        self.mlp = ImplicitMLP(config, parts, config.guide_dim, config.positional)

    def forward(self, feat_BFhw: Tensor, guide_BGHW: Tensor, where: Geometry) -> Tensor:
        """Return the fused latent map [B, L, H, W]."""
        parts = [feat_BFhw.permute(0, 2, 3, 1)]
        if self.kernel is not None:
            channels = feat_BFhw.shape[1]
            kernel = self.kernel.to(feat_BFhw).expand(channels, 1, 3, 3)
            edges_BFhw = F.conv2d(feat_BFhw, kernel, padding=1, groups=channels)
            parts.append(edges_BFhw.permute(0, 2, 3, 1))
        return self.mlp(parts, guide_BGHW.permute(0, 2, 3, 1), where).permute(0, 3, 1, 2)


class PhaseStage(nn.Module):
    """A 1x1 convolution, then a depthwise one, both without bias."""

    def __init__(self, channels_in: int, channels_out: int, kernel_px: int) -> None:
        super().__init__()
        self.pointwise = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.depthwise = nn.Conv2d(
            channels_out,
            channels_out,
            kernel_px,
            padding=kernel_px // 2,
            groups=channels_out,
            bias=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        # A matrix product: the same sum as the 1x1 convolution, twice as fast in this layout.
        weight = self.pointwise.weight.flatten(1).expand(len(x), -1, -1)
        mixed = torch.bmm(weight, x.flatten(2))
        return self.depthwise(mixed.unflatten(2, x.shape[2:]))


class PhaseNetwork(nn.Module):
    """The phase branch: convolutions on a map of features, guide and offset.

    In the `reviewed` layout its input [B, N, C] is re-viewed as [B, C, H, W], not permuted: a
    "channel" mixes positions. Released weights were trained with it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.reviewed = config.phase_layout == "reviewed"
        self.upsampler = Upsampler(config, config.feat_dim)
        columns = config.feat_dim + config.guide_dim + 2 * Upsampler.has_offset(config)
        sizes = [columns, *config.mlp_widths, Upsampler.outputs(config)]
        self.stages = nn.ModuleList(
            PhaseStage(a, b, config.frequency_kernel_px) for a, b in pairwise(sizes)
        )

    def forward(self, feat_BhwF: Tensor, guide_BHWG: Tensor, where: Geometry) -> Tensor:
        """Return the fused phase map [B, H, W, L] in radians."""
        batch, height, width, _ = guide_BHWG.shape
        votes = []
        for feat_BHWF, offset in self.upsampler(self.upsampler.prepare(feat_BhwF), where):
            parts = [feat_BHWF, guide_BHWG]
            if offset is not None:
                parts.append(offset.expand(batch, -1, -1, -1))
            x = torch.cat(parts, dim=-1)
            x = x.view(batch, -1, height, width) if self.reviewed else x.permute(0, 3, 1, 2)
            for i, stage in enumerate(self.stages):
                x = stage(F.relu(x) if i else x)
            if self.reviewed:
                votes.append(x.reshape(batch, height, width, -1))
            else:
                votes.append(x.permute(0, 2, 3, 1))
        return blend(votes)


def phase_of(spectrum: Tensor) -> Tensor:
    """Return the phase [..., H, W] of the spectrum of a real image, in (-pi, pi].

    Self-conjugate bins (frequency 0 or Nyquist along both axes) are real, but FFT libraries leave
    rounding noise or a signed zero in their imaginary part, so that a negative bin would get +pi or
    -pi by chance: here it is +pi always.
    """
    height, width = spectrum.shape[-2:]
    rows, cols = ((2 * torch.arange(n, device=spectrum.device)) % n == 0 for n in (height, width))
    imaginary = torch.where(rows[:, None] & cols, 0.0, spectrum.imag)
    return torch.complex(spectrum.real, imaginary).angle()


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

    def _spectrum(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return amplitude and phase, [B, H, W, C] each."""
        spectrum = torch.fft.fft2(x_BCHW)
        parts = (spectrum.abs(), phase_of(spectrum))
        if self.shifted:
            parts = tuple(torch.fft.fftshift(part, dim=(-2, -1)) for part in parts)
        return parts[0].permute(0, 2, 3, 1), parts[1].permute(0, 2, 3, 1)

    def forward(self, feat_BFhw: Tensor, guide_BGHW: Tensor, where: Geometry) -> Tensor:
        """Return the fused latent map [B, L, H, W]."""
        with torch.autocast(feat_BFhw.device.type, enabled=False):
            wide = torch.promote_types(feat_BFhw.dtype, torch.float32)
            feat_amplitude, feat_phase = self._spectrum(feat_BFhw.to(wide))
            guide_amplitude, guide_phase = self._spectrum(guide_BGHW.to(wide))
            if self.amplitude is not None:
                amplitude = self.amplitude([feat_amplitude], guide_amplitude, where)
            else:
                assert self.guide_amplitude is not None
                amplitude = self.guide_amplitude(guide_amplitude)
            if self.phase is not None:
                phase = self.phase(feat_phase, guide_phase, where)
            else:
                assert self.guide_phase is not None
                phase = self.guide_phase(guide_phase)
            spectrum = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
            spectrum = spectrum.permute(0, 3, 1, 2)
            if self.shifted:
                spectrum = torch.fft.ifftshift(spectrum, dim=(-2, -1))
            image = torch.fft.ifft2(spectrum)
            return image.abs() if self.inverse == "modulus" else image.real
