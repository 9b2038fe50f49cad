"""Fourier fusion: amplitude and phase of the LR latent code and of the HR guide.

The networks see the phase as an angle in (-pi, pi], which jumps at the negative real axis. Bins
that must be real get +pi by rule, so that FFT libraries, devices and number types agree on them. An
ordinary bin can still lie so close to that axis that rounding decides its side. That is rare, but
then float32 and float64 runs can differ by up to 1e-3 somewhere in the image, in every preset.

Legend: B batch, C channels, F features, G guide features, L latent bands, h w LR size, H W HR size
(of `polar`, the image's).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from feinfn.config import ModelConfig
from feinfn.methods.feinfn.geometry import Geometry
from feinfn.methods.feinfn.implicit import ImplicitMLP
from feinfn.methods.feinfn.phase import PhaseNetwork
from feinfn.methods.feinfn.strips import Strips, slices


def clear_real_bins(half: Tensor, width: int) -> None:
    """Make the self-conjugate bins real, in place, of half the spectrum of a real image.

    That is [..., H, W // 2 + 1] for `width` W. At frequency 0 or Nyquist along both axes the
    spectrum is real, but FFT libraries leave rounding noise or a signed zero in the imaginary part.
    The phase of a negative bin would be +pi or -pi by chance; with a positive zero it is always
    +pi.
    """
    height = half.shape[-2]
    for row in {0, height // 2} if height % 2 == 0 else {0}:
        for col in {0, width // 2} if width % 2 == 0 else {0}:
            half[..., row, col].imag.zero_()


GROUP = 2**19
"""Numbers per Fourier transform that fit into a CPU's cache."""


def _half_spectra(
    x_BCHW: Tensor, channels_each: int | None = None
) -> Iterator[tuple[int, slice, Tensor]]:
    """Yield image, slice of channels and spectrum of every Fourier transform.

    The spectrum has columns 0 to W // 2. The others hold the conjugates of the bins at the opposite
    frequencies.
    """
    batch, channels, height, width = x_BCHW.shape
    if channels_each is None:
        on_cpu = x_BCHW.device.type == "cpu"
        channels_each = max(16, GROUP // (height * width)) if on_cpu else channels
    for i in range(batch):
        for group in slices(channels, channels_each):
            half = torch.fft.rfft2(x_BCHW[i, group])
            clear_real_bins(half, width)
            yield i, group, half


def _opposite(x_HWC: Tensor, columns: slice) -> Tensor:
    """Return columns of a spectrum, every bin taken from the opposite frequency."""
    rows, cols = (-torch.arange(n, device=x_HWC.device) % n for n in x_HWC.shape[:2])
    return x_HWC[rows[:, None], cols[columns]]


def _fill(x_HWC: Tensor, half_CHW: Tensor, sign: int) -> None:
    """Write half a spectrum, and `sign` times its bins at the opposite frequencies."""
    own = half_CHW.shape[-1]
    x_HWC[:, :own] = half_CHW.movedim(0, -1)
    x_HWC[:, own:] = _opposite(x_HWC, slice(own, None)).mul_(sign)


def _fold(x_HWC: Tensor, sign: int) -> Tensor:
    """Return half a spectrum [C, H, W // 2 + 1]: the mean with `sign` times the opposite bins."""
    own = slice(x_HWC.shape[1] // 2 + 1)
    return _opposite(x_HWC, own).mul_(sign).add_(x_HWC[:, own]).mul_(0.5).movedim(-1, 0)


def _channels_last(x_BCHW: Tensor) -> Tensor:
    batch, channels, height, width = x_BCHW.shape
    return x_BCHW.new_empty(batch, height, width, channels)


class _Polar(torch.autograd.Function):
    """Amplitude and phase of the spectrum of a real image, [B, H, W, C] each.

    A group of channels of one image is transformed at a time, and only the image is kept for the
    backward pass. The gradient at a zero bin is zero.
    """

    @staticmethod
    def forward(ctx: Any, x_BCHW: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(x_BCHW)
        amplitude, phase = _channels_last(x_BCHW), _channels_last(x_BCHW)
        for i, group, half in _half_spectra(x_BCHW):
            _fill(amplitude[i, ..., group], half.abs(), 1)
            _fill(phase[i, ..., group], half.angle(), -1)
        return amplitude, phase

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, by_amplitude: Tensor, by_phase: Tensor) -> Tensor:
        (x_BCHW,) = ctx.saved_tensors
        size, grad_BCHW = x_BCHW.shape[-2:], torch.empty_like(x_BCHW)
        for i, group, half in _half_spectra(x_BCHW):
            amplitude = half.abs()
            inverse = amplitude.reciprocal().masked_fill_(amplitude == 0, 0)
            along = _fold(by_amplitude[i, ..., group], 1) * inverse
            # Multiplied twice, because the square of a tiny amplitude underflows to zero.
            across = _fold(by_phase[i, ..., group], -1) * inverse * inverse
            grad = torch.complex(along, across).mul_(half)
            grad_BCHW[i, group] = torch.fft.irfft2(grad, s=size, norm="forward")
        return grad_BCHW


def polar(x_BCHW: Tensor, shifted: bool, channels: int | None) -> Iterator[Tensor]:
    """Yield the amplitude, then the phase of the spectrum of an image, [B, H, W, C] each.

    Without gradients only one of them is in memory at a time. If `channels` is given, that many are
    transformed at a time and the phase overwrites the image. `shifted` moves frequency zero to the
    centre.
    """

    def shift(component: Tensor) -> Tensor:
        return torch.fft.fftshift(component, dim=(1, 2)) if shifted else component

    if torch.is_grad_enabled():
        yield from (shift(component) for component in _Polar.apply(x_BCHW))
        return

    def part(function: Callable[[Tensor], Tensor], sign: int, output: Tensor) -> Tensor:
        for i, group, half in _half_spectra(x_BCHW, channels):
            _fill(output[i, ..., group], function(half), sign)
        return shift(output)

    yield part(torch.abs, 1, _channels_last(x_BCHW))
    yield part(torch.angle, -1, x_BCHW.movedim(1, -1) if channels else _channels_last(x_BCHW))


class FourierFusion(nn.Module):
    """Fusion of amplitude and phase, and the inverse transform of the result.

    It runs in float32 or wider: amplitudes grow with the image's area, beyond half precision.
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
        self, feat_BFhw: Tensor, guide_BGHW: Tensor, geometry: Geometry, strips: Strips
    ) -> Tensor:
        """Return the fused latent map [B, H, W, L]."""
        with torch.autocast(feat_BFhw.device.type, enabled=False):
            wide = torch.promote_types(feat_BFhw.dtype, torch.float32)
            feat = polar(feat_BFhw.to(wide), self.shifted, None)
            # Under a memory budget the phase overwrites the guide, which is not read again.
            guide = polar(guide_BGHW.to(wide), self.shifted, strips.channels)
            # Each part is freed as soon as it is used.
            amplitude = self._fuse_amplitude(next(feat), next(guide), geometry, strips)
            phase = self._fuse_phase(next(feat), next(guide), geometry, strips)
            if torch.is_grad_enabled():
                return self._image(amplitude, phase).movedim(1, -1)
            groups = slices(amplitude.shape[-1], strips.channels or 8)
            parts = [self._image(amplitude[..., g], phase[..., g]) for g in groups]
            return torch.cat(parts, dim=1).movedim(1, -1)

    def _fuse_amplitude(
        self, feat_BhwF: Tensor, guide_BHWG: Tensor, geometry: Geometry, strips: Strips
    ) -> Tensor:
        if self.amplitude is not None:
            return self.amplitude([feat_BhwF], guide_BHWG, geometry, strips)
        assert self.guide_amplitude is not None
        return self.guide_amplitude(guide_BHWG)

    def _fuse_phase(
        self, feat_BhwF: Tensor, guide_BHWG: Tensor, geometry: Geometry, strips: Strips
    ) -> Tensor:
        if self.phase is not None:
            return self.phase(feat_BhwF, guide_BHWG, geometry, strips)
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
