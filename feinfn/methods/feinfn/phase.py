"""Phase network: the part of the Fourier branch that fuses phases by convolutions.

Legend: B batch, F features, G guide features, L latent bands, h w LR size, H W HR size, N = H * W,
C channels of the network's input, J pixels of a strip, K hidden width, R rows of the table of LR
codes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from feinfn.config import ModelConfig
from feinfn.methods.feinfn.geometry import Geometry
from feinfn.methods.feinfn.implicit import Upsampler, blend, blend_one_by_one
from feinfn.methods.feinfn.strips import Strips, halo_strips


class PhaseStage(nn.Module):
    """A 1x1 convolution, then a depthwise convolution, both without bias."""

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
        """The 1x1 convolution as a matrix [out, in]."""
        return self.pointwise.weight.flatten(1)

    def mix(self, x_1CHW: Tensor) -> Tensor:
        """Return the result of the 1x1 convolution of a map in channels-last memory."""
        if x_1CHW.device.type == "cpu":
            return self.pointwise(x_1CHW)
        # By default, convolutions on a GPU round to TF32 and products do not.
        return F.linear(x_1CHW.movedim(1, -1), self.weight).movedim(-1, 1)


STRIP = 2**14
"""Pixels per strip of the phase network on a CPU without gradients."""


@dataclass(frozen=True)
class PhaseVote:
    """The input that one neighbour gives to the phase network for one image.

    `table_RF` holds the LR codes, `picks_N` its rows, and `offset_N2` the offsets, [N, 0] if none.
    """

    table_RF: Tensor
    picks_N: Tensor
    offset_N2: Tensor

    def at(self, pixels: Tensor | slice) -> "PhaseVote":
        """Return the vote restricted to some pixels."""
        return PhaseVote(self.table_RF, self.picks_N[pixels], self.offset_N2[pixels])


class _Joined(torch.autograd.Function):
    """Picked LR codes, guide and offset side by side; the gradient is made contiguous first."""

    @staticmethod
    def forward(
        ctx: Any, table_RF: Tensor, picks_N: Tensor, hr_NG: Tensor, offset_N2: Tensor
    ) -> Tensor:
        ctx.save_for_backward(picks_N)
        ctx.table, ctx.columns = table_RF.shape, (table_RF.shape[1], hr_NG.shape[1])
        return torch.cat([table_RF.index_select(0, picks_N), hr_NG, offset_N2], dim=1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_NC: Tensor) -> tuple:
        (picks_N,) = ctx.saved_tensors
        feat, guide = ctx.columns
        by_lr_NF = grad_NC[:, :feat].contiguous()
        by_table_RF = grad_NC.new_zeros(ctx.table).index_add_(0, picks_N, by_lr_NF)
        return by_table_RF, None, grad_NC[:, feat : feat + guide], None


class PhaseNetwork(nn.Module):
    """The phase branch: convolutions on a map of features, guide and offset.

    In the `reviewed` layout its input [N, C] is re-viewed as [C, H, W], not permuted, so that a
    "channel" mixes positions; released weights were trained with it. Images and votes are processed
    one by one, channels last: large maps and other layouts are much slower on a CPU.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.reviewed = config.phase_layout == "reviewed"
        self.upsampler = Upsampler(config, config.feat_dim)
        self.columns = [config.feat_dim, config.guide_dim, 2 * self.upsampler.has_offset]
        sizes = [sum(self.columns), *config.mlp_widths, self.upsampler.outputs]
        # Any, because torch types what modules hold as `Tensor | Module`.
        self.stages: Any = nn.ModuleList(
            PhaseStage(a, b, config.frequency_kernel_px) for a, b in pairwise(sizes)
        )
        self.halo = len(self.stages) * (config.frequency_kernel_px // 2)

    def forward(
        self, feat_BhwF: Tensor, guide_BHWG: Tensor, geometry: Geometry, strips: Strips
    ) -> Tensor:
        """Return the fused phase map [B, H, W, L] in radians."""
        height, width = geometry.hr_size
        rows = height
        if not torch.is_grad_enabled():
            fits = STRIP // width if guide_BHWG.device.type == "cpu" else height
            rows = max(1, min(fits, strips.phase_rows or height, height))
        whole = rows == height
        run: Callable[..., Tensor] = self._vote
        if not whole:
            run = partial(self._vote_in_strips, rows=rows)
        elif strips.recompute and torch.is_grad_enabled():
            run = partial(checkpoint, self._vote, use_reentrant=False)
        lr_BhwF, hr_BHWG = self.upsampler.prepare(feat_BhwF), guide_BHWG
        if not self.reviewed:
            # Channels stay channels, so the first 1x1 convolution splits like a linear layer.
            w_lr, w_hr, _ = self._first_weights()
            lr_BhwF = F.linear(lr_BhwF, w_lr)
            if whole:
                hr_BHWG = F.linear(hr_BHWG, w_hr)
        images = []
        for lr_hwF, hr_NG in zip(lr_BhwF, hr_BHWG.flatten(1, 2).unbind(), strict=True):
            votes = (run(vote, hr_NG, geometry.hr_size) for vote in self._votes(lr_hwF, geometry))
            if torch.is_grad_enabled():
                images.append(blend(torch.stack(list(votes), dim=1)))
            else:
                images.append(blend_one_by_one(votes))
        return torch.stack(images).unflatten(1, geometry.hr_size)

    def _first_weights(self) -> tuple[Tensor, ...]:
        return self.stages[0].weight.split(self.columns, dim=1)

    def _votes(self, lr_hwF: Tensor, geometry: Geometry) -> Iterator[PhaseVote]:
        table_RF, picks_NV, offset_NV2 = self.upsampler.votes(lr_hwF[None], geometry)
        for picks_N, offset_N2 in zip(picks_NV.unbind(1), offset_NV2.unbind(1), strict=True):
            yield PhaseVote(table_RF, picks_N, offset_N2)

    def _inputs(self, vote: PhaseVote, hr_NG: Tensor) -> Tensor:
        """Return the network's input [N, C]; if not reviewed, after the first 1x1 convolution."""
        if self.reviewed:
            return _Joined.apply(vote.table_RF, vote.picks_N, hr_NG, vote.offset_N2)
        x_NK = vote.table_RF.index_select(0, vote.picks_N).add_(hr_NG)
        if not self.upsampler.has_offset:
            return x_NK
        return x_NK.add_(F.linear(vote.offset_N2, self._first_weights()[2]))

    def _convolve(self, x_NC: Tensor, size: tuple[int, int]) -> Tensor:
        if self.reviewed:
            # Not `mix`, because here the memory is channels first.
            x_NC = F.linear(x_NC, self.stages[0].weight)
        x_1CHW = x_NC.view(1, *size, -1).movedim(-1, 1)
        for i, stage in enumerate(self.stages):
            if i:
                x_1CHW = stage.mix(F.relu(x_1CHW, inplace=True))
            x_1CHW = stage.depthwise(x_1CHW)
        return x_1CHW.movedim(1, -1).reshape(size[0] * size[1], -1)

    def _vote(self, vote: PhaseVote, hr_NG: Tensor, size: tuple[int, int]) -> Tensor:
        """Return a vote for every pixel of one image, [N, L + 1]."""
        x_NC = self._inputs(vote, hr_NG)
        if self.reviewed:
            x_NC = x_NC.view(-1, len(x_NC)).t()
        out_NC = self._convolve(x_NC, size)
        return out_NC.t().reshape(len(out_NC), -1) if self.reviewed else out_NC

    def _vote_in_strips(
        self, vote: PhaseVote, hr_NG: Tensor, size: tuple[int, int], rows: int
    ) -> Tensor:
        """Return the result of `_vote`, convolving strips of rows with a halo."""
        (height, width), channels = size, self.upsampler.outputs
        # Memory is laid out so that the last view needs no copy.
        if self.reviewed:
            out_NC = hr_NG.new_empty(channels, len(hr_NG)).t()
        else:
            out_NC = hr_NG.new_empty(len(hr_NG), channels)
        # One buffer for all strips, because first access to new memory is slow.
        columns = hr_NG.new_empty(sum(self.columns), min(rows + 2 * self.halo, height) * width)
        for strip, wide, inside in halo_strips(height, rows, self.halo):
            cut, inner, place = (
                slice(s.start * width, s.stop * width) for s in (wide, inside, strip)
            )
            if self.reviewed:
                x_JC = self._reviewed_columns(vote, hr_NG, cut, columns).t()
            else:
                # Per strip, because at full size it would be the largest map of all.
                x_JC = self._inputs(vote.at(cut), F.linear(hr_NG[cut], self._first_weights()[1]))
            part_JC = self._convolve(x_JC, (wide.stop - wide.start, width))
            out_NC[place] = part_JC[inner]
        return out_NC.t().view(len(out_NC), -1) if self.reviewed else out_NC

    def _reviewed_columns(
        self, vote: PhaseVote, hr_NG: Tensor, cut: slice, columns: Tensor
    ) -> Tensor:
        """Return columns `cut` of the input [N, C] re-viewed as [C, N].

        Row c of the result is a run of the flat array from c * N + cut.start: the inputs of a few
        pixels without a start and an end.
        """
        points, channels, length = len(hr_NG), sum(self.columns), cut.stop - cut.start
        starts = [c * points + cut.start for c in range(channels)]
        ahead = torch.arange((length + channels - 2) // channels + 1, device=hr_NG.device)
        first = torch.tensor([start // channels for start in starts], device=hr_NG.device)
        pixels = (first[:, None] + ahead).clamp_(max=points - 1).flatten()
        runs = self._inputs(vote.at(pixels), hr_NG[pixels]).view(channels, -1)
        for c, start in enumerate(starts):
            begin = start % channels
            columns[c, :length] = runs[c, begin : begin + length]
        return columns[:, :length]
