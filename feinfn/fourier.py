"""Fusion of the LR latent code with the HR guide in the Fourier domain.

Legend: B batch, F features, G guide features, L latent bands, h w LR size, H W HR size, N = H * W,
C channels of the phase network's input, R rows of the table of LR codes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from feinfn.config import ModelConfig
from feinfn.coords import Geometry
from feinfn.implicit import ImplicitMLP, Upsampler
from feinfn.strips import Strips, slices
from feinfn.votes import blend

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

    @property
    def weight(self) -> Tensor:
        """Return the 1x1 convolution as a matrix [out, in]."""
        return self.pointwise.weight.flatten(1)


@dataclass(frozen=True)
class PhaseVote:
    """What one neighbour tells the phase network about one image.

    `table_RF` holds the LR codes, `picks_N` its rows, `offset_N2` the offsets where there are any.
    """

    table_RF: Tensor
    picks_N: Tensor
    offset_N2: Tensor | None

    def at(self, pixels: Tensor | slice) -> "PhaseVote":
        """Return the vote at some pixels."""
        offset = None if self.offset_N2 is None else self.offset_N2[pixels]
        return PhaseVote(self.table_RF, self.picks_N[pixels], offset)


class PhaseNetwork(nn.Module):
    """The phase branch: convolutions on a map of features, guide and offset.

    In the `reviewed` layout its input [N, C] is re-viewed as [C, H, W], not permuted: a "channel"
    mixes positions. Released weights were trained with it. Images and votes are taken one by one,
    with the channels last: large maps and other layouts are much slower on a processor.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.reviewed = config.phase_layout == "reviewed"
        self.has_offset = Upsampler.has_offset(config)
        self.upsampler = Upsampler(config, config.feat_dim)
        self.columns = [config.feat_dim, config.guide_dim, 2 * self.has_offset]
        sizes = [sum(self.columns), *config.mlp_widths, Upsampler.outputs(config)]
        self.stages = nn.ModuleList(
            PhaseStage(a, b, config.frequency_kernel_px) for a, b in pairwise(sizes)
        )
        self.halo = len(self.stages) * (config.frequency_kernel_px // 2)

    def forward(
        self, feat_BhwF: Tensor, guide_BHWG: Tensor, where: Geometry, strips: Strips
    ) -> Tensor:
        """Return the fused phase map [B, H, W, L] in radians."""
        lr_BhwF, hr_BHWG = self.upsampler.prepare(feat_BhwF), guide_BHWG
        if not self.reviewed:
            # Channels stay channels: the first 1x1 convolution splits as a linear layer does.
            w_lr, w_hr, _ = self._first_weights()
            lr_BhwF, hr_BHWG = F.linear(lr_BhwF, w_lr), F.linear(hr_BHWG, w_hr)
        run: Callable[..., Tensor] = self._vote
        if not torch.is_grad_enabled():
            run = partial(self._vote_in_strips, rows=strips.rows or where.hr_size[0])
        elif strips.recompute:
            run = partial(checkpoint, self._vote, use_reentrant=False)
        images = []
        for lr_hwF, hr_NG in zip(lr_BhwF, hr_BHWG.flatten(1, 2).unbind(), strict=True):
            votes = [run(vote, hr_NG, where.hr_size) for vote in self._votes(lr_hwF, where)]
            images.append(blend(torch.stack(votes, dim=1)))
        return torch.stack(images).unflatten(1, where.hr_size)

    def _first_weights(self) -> tuple[Tensor, ...]:
        return self.stages[0].weight.split(self.columns, dim=1)

    def _votes(self, lr_hwF: Tensor, where: Geometry) -> Iterator[PhaseVote]:
        if not self.has_offset:
            codes_NF = self.upsampler.interpolate(lr_hwF[None], where)
            yield PhaseVote(codes_NF, torch.arange(len(codes_NF), device=codes_NF.device), None)
            return
        table_RF = where.table(lr_hwF[None])
        for i in range(where.picks_NV.shape[1]):
            yield PhaseVote(table_RF, where.picks_NV[:, i], where.offset_NV2[:, i])

    def _inputs(self, vote: PhaseVote, hr_NG: Tensor) -> Tensor:
        """Return the network's input [N, C], or already the first 1x1 convolution's output."""
        lr_NF = vote.table_RF.index_select(0, vote.picks_N)
        if self.reviewed:
            offset = [] if vote.offset_N2 is None else [vote.offset_N2]
            return torch.cat([lr_NF, hr_NG, *offset], dim=1)
        x_NK = lr_NF.add_(hr_NG)
        if vote.offset_N2 is None:
            return x_NK
        return x_NK.add_(F.linear(vote.offset_N2, self._first_weights()[2]))

    def _convolve(self, x_NC: Tensor, size: tuple[int, int]) -> Tensor:
        for i, stage in enumerate(self.stages):
            if i or self.reviewed:
                x_NC = F.linear(F.relu(x_NC, inplace=True) if i else x_NC, stage.weight)
            x_NC = stage.depthwise(x_NC.view(1, *size, -1).movedim(-1, 1)).movedim(1, -1)
            x_NC = x_NC.reshape(size[0] * size[1], -1)
        return x_NC

    def _review(self, x_NC: Tensor) -> Tensor:
        """Return [C, N] flattened and read as [N, C], where the layout asks for it."""
        return x_NC.t().reshape(len(x_NC), -1) if self.reviewed else x_NC

    def _vote(self, vote: PhaseVote, hr_NG: Tensor, size: tuple[int, int]) -> Tensor:
        """Return a vote for every pixel of one image, [N, L + 1]."""
        x_NC = self._inputs(vote, hr_NG)
        if self.reviewed:
            x_NC = x_NC.view(-1, len(x_NC)).t()
        return self._review(self._convolve(x_NC, size))

    def _vote_in_strips(
        self, vote: PhaseVote, hr_NG: Tensor, size: tuple[int, int], rows: int
    ) -> Tensor:
        """Return the same, convolving strips of rows with as many more as convolutions see."""
        (height, width), parts = size, []
        for strip in slices(height, rows):
            first, last = max(strip.start - self.halo, 0), min(strip.stop + self.halo, height)
            cut = slice(first * width, last * width)
            if self.reviewed:
                x_JC = self._reviewed_columns(vote, hr_NG, cut).t()
            else:
                x_JC = self._inputs(vote.at(cut), hr_NG[cut])
            part = self._convolve(x_JC, (last - first, width))
            parts.append(part[(strip.start - first) * width :][: (strip.stop - strip.start) * width])
        return self._review(torch.cat(parts))

    def _reviewed_columns(self, vote: PhaseVote, hr_NG: Tensor, cut: slice) -> Tensor:
        """Return columns `cut` of the input [N, C] re-viewed as [C, N].

        Row c of the result is a run of the flat array that starts at c * N + cut.start: the whole
        inputs of a few pixels, less a beginning and an end.
        """
        points, channels, length = len(hr_NG), sum(self.columns), cut.stop - cut.start
        start = torch.arange(channels, device=hr_NG.device) * points + cut.start
        ahead = torch.arange((length + channels - 2) // channels + 1, device=hr_NG.device)
        pixels = (start[:, None] // channels + ahead).clamp_(max=points - 1).flatten()
        runs = self._inputs(vote.at(pixels), hr_NG[pixels]).view(channels, -1)
        begin = (start % channels).tolist()
        return torch.stack([run[b : b + length] for run, b in zip(runs, begin, strict=True)])


def clear_real_bins(spectrum: Tensor) -> None:
    """Make the self-conjugate bins of the spectrum of a real image [..., H, W] real, in place.

    At frequency 0 or Nyquist along both axes the spectrum is real, but FFT libraries leave rounding
    noise or a signed zero in the imaginary part, so that the phase of a negative bin would be +pi
    or -pi by chance: with a positive zero it is +pi always.
    """
    height, width = spectrum.shape[-2:]
    for row in {0, height // 2} if height % 2 == 0 else {0}:
        for col in {0, width // 2} if width % 2 == 0 else {0}:
            spectrum[..., row, col].imag.zero_()


GROUP = 2**19
"""Numbers per Fourier transform: what fits the processor's cache."""


class _Polar(torch.autograd.Function):
    """Amplitude and phase of the spectrum of a real image, [B, H, W, C] each.

    Some channels of one image at a time, and nothing is kept for the backward pass but the image.
    The gradient at a zero bin is zero.
    """

    @staticmethod
    def groups(x_BCHW: Tensor) -> list[tuple[int, slice]]:
        """Return (image, channels) of every transform."""
        batch, channels, height, width = x_BCHW.shape
        each = max(1, GROUP // (height * width)) if x_BCHW.device.type == "cpu" else channels
        return [(i, group) for i in range(batch) for group in slices(channels, each)]

    @staticmethod
    def spectrum(x_CHW: Tensor) -> Tensor:
        """Return the spectrum, with real self-conjugate bins."""
        spectrum = torch.fft.fft2(x_CHW)
        clear_real_bins(spectrum)
        return spectrum

    @staticmethod
    def forward(ctx, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x_BCHW)
        batch, channels, height, width = x_BCHW.shape
        amplitude, phase = (x_BCHW.new_empty(batch, height, width, channels) for _ in range(2))
        for i, group in _Polar.groups(x_BCHW):
            spectrum = _Polar.spectrum(x_BCHW[i, group])
            amplitude[i, ..., group] = spectrum.abs().movedim(0, -1)
            phase[i, ..., group] = spectrum.angle().movedim(0, -1)
        return amplitude, phase

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, by_amplitude: Tensor, by_phase: Tensor) -> Tensor:
        (x_BCHW,) = ctx.saved_tensors
        grad_BCHW = torch.empty_like(x_BCHW)
        for i, group in _Polar.groups(x_BCHW):
            spectrum = _Polar.spectrum(x_BCHW[i, group])
            amplitude = spectrum.abs()
            inverse = amplitude.reciprocal().masked_fill_(amplitude == 0, 0)
            along = by_amplitude[i, ..., group].movedim(-1, 0) * inverse
            across = by_phase[i, ..., group].movedim(-1, 0) * inverse.square_()
            grad = torch.complex(along, across).mul_(spectrum)
            grad_BCHW[i, group] = torch.fft.ifft2(grad, norm="forward").real
        return grad_BCHW


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
        amplitude, phase = _Polar.apply(x_BCHW)
        if self.shifted:
            return tuple(torch.fft.fftshift(part, dim=(1, 2)) for part in (amplitude, phase))
        return amplitude, phase

    def forward(
        self, feat_BFhw: Tensor, guide_BGHW: Tensor, where: Geometry, strips: Strips
    ) -> Tensor:
        """Return the fused latent map [B, H, W, L]."""
        with torch.autocast(feat_BFhw.device.type, enabled=False):
            wide = torch.promote_types(feat_BFhw.dtype, torch.float32)
            feat_amplitude, feat_phase = self._spectrum(feat_BFhw.to(wide))
            guide_amplitude, guide_phase = self._spectrum(guide_BGHW.to(wide))
            if self.amplitude is not None:
                parts = [feat_amplitude]
                amplitude = self.amplitude(parts, guide_amplitude, where, strips.queries)
            else:
                assert self.guide_amplitude is not None
                amplitude = self.guide_amplitude(guide_amplitude)
            del guide_amplitude
            if self.phase is not None:
                phase = self.phase(feat_phase, guide_phase, where, strips)
            else:
                assert self.guide_phase is not None
                phase = self.guide_phase(guide_phase)
            del guide_phase
            spectrum = torch.complex(amplitude * phase.cos(), amplitude * phase.sin())
            spectrum = spectrum.movedim(-1, 1)
            if self.shifted:
                spectrum = torch.fft.ifftshift(spectrum, dim=(-2, -1))
            image = torch.fft.ifft2(spectrum)
            return (image.abs() if self.inverse == "modulus" else image.real).movedim(1, -1)
