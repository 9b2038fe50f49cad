"""Implicit networks: from the LR latent code and the HR guide to one latent map at HR size.

Every HR pixel looks at four LR neighbours. A network maps (LR code, guide, offset) of each to a
vote: L latent bands and one logit. The softmax over the four logits blends the votes. The first
layer is linear in its parts, so its LR part is computed once per LR pixel, its guide part once per
HR pixel, and only the sum is formed per vote. Votes are computed in strips of queries.

Legend: B batch, F features, G guide features, K hidden width, L latent bands, h w LR size, H W HR
size, N = H * W, Q queries (HR pixels of all images of the batch, in raster order), V votes per
query, P = Q * V, R rows of the table of LR codes.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.config import ModelConfig
from feinfn.errors import UserError
from feinfn.methods.feinfn.geometry import OCTAVES, Geometry, offset_features
from feinfn.methods.feinfn.strips import QUERIES, Buffers, Strips, slices, strip_size


def widen(x: Tensor) -> Tensor:
    """Return `x` in float32 or wider, the type in which gradients of strips are summed."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def for_products(*tensors: Tensor) -> list[Tensor]:
    """Return the tensors in the type that matrix products have under autocast."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    # Like autocast, keep float64.
    dtype = torch.get_autocast_dtype(device)
    return [x if x.dtype == torch.float64 else x.to(dtype) for x in tensors]


def add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a product to `total`, which may be of a wider type."""
    if total.dtype == a.dtype:
        total.addmm_(a, b)
    else:
        total += a @ b


def relu_backward_(grad: Tensor, output: Tensor) -> None:
    """Turn the gradient of relu's output into that of its input, in place."""
    torch.ops.aten.threshold_backward.grad_input(grad, output, 0, grad_input=grad)


def keeps_products(strips: Strips, tensors: Sequence[Tensor]) -> bool:
    """Return True if a backward pass shall find the results of products of `tensors`."""
    wanted = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return wanted and not strips.recompute


def blend(votes_QVC: Tensor) -> Tensor:
    """Return the softmax-weighted mean of votes [Q, V, L + 1], whose last entry is the logit.

    A single vote has no logit and is returned unchanged.
    """
    if votes_QVC.shape[1] == 1:
        return votes_QVC[:, 0]
    weight_QV1 = torch.softmax(votes_QVC[..., -1:], dim=1)
    return (weight_QV1 * votes_QVC[..., :-1]).sum(dim=1)


def blend_one_by_one(votes: Iterator[Tensor]) -> Tensor:
    """Return the result of `blend` for votes [Q, L + 1], with only two of them in memory."""
    first = next(votes)
    total_QC: Tensor | None = None
    for vote_QC in votes:
        if total_QC is None:
            # The logit's column holds the sum of weights, relative to the highest logit so far.
            total_QC, top_Q1 = first, first[:, -1:].clone()
            total_QC[:, -1] = 1
        for q in slices(len(vote_QC), QUERIES):
            logit_Q1 = vote_QC[q, -1:].clone()
            higher_Q1 = torch.maximum(top_Q1[q], logit_Q1)
            vote_QC[q, -1] = 1
            total_QC[q].mul_((top_Q1[q] - higher_Q1).exp_())
            total_QC[q].addcmul_(vote_QC[q], (logit_Q1 - higher_Q1).exp_())
            top_Q1[q] = higher_Q1
    return first if total_QC is None else total_QC[:, :-1].div_(total_QC[:, -1:])


def _blend_backward(votes_QVC: Tensor, grad_QL: Tensor) -> Tensor:
    if votes_QVC.shape[1] == 1:
        return grad_QL[:, None]
    weight_QV1 = torch.softmax(votes_QVC[..., -1:], dim=1)
    grad_QVC = torch.empty_like(votes_QVC)
    grad_QVC[..., :-1] = weight_QV1 * grad_QL[:, None]
    gain_QV1 = (grad_QVC[..., :-1] * votes_QVC[..., :-1]).sum(dim=-1, keepdim=True)
    grad_QVC[..., -1:] = gain_QV1 - weight_QV1 * gain_QV1.sum(dim=1, keepdim=True)
    return grad_QVC


def _first(
    picks_QV: Tensor,
    offset_PO: Tensor,
    hr_QK: Tensor,
    table_RK: Tensor,
    w_offset: Tensor,
    buffers: Buffers,
) -> Tensor:
    """Return the result of the first layer for every vote, [P, K]."""
    x_PK = buffers("first", offset_PO, hr_QK.shape[1])
    torch.index_select(table_RK, 0, picks_QV.flatten(), out=x_PK).addmm_(offset_PO, w_offset.t())
    x_PK.view(*picks_QV.shape, -1).add_(hr_QK[:, None])
    return x_PK.relu_()


def _further(x_PC: Tensor, layers: Sequence[Tensor]) -> list[Tensor]:
    """Return the results of the layers after the first, with relu in between; last the votes."""
    results: list[Tensor] = []
    for i in range(0, len(layers), 2):
        if results:
            x_PC.relu_()
        x_PC = F.linear(x_PC, *layers[i : i + 2])
        results.append(x_PC)
    return results


class _Votes(torch.autograd.Function):
    """All votes in strips of queries, blended.

    A vote is layers(relu(table[pick] + w_offset offset + w_hr hr + bias)). Tensors are hr [Q, G],
    table [R, K], w_offset, and the layers (w_hr, bias, weight, bias, ...), with relu in between.
    Gradients reach all of them. With `keep`, the backward pass finds the results of products; the
    sums of the first layer, the largest, are always formed again.
    """

    @staticmethod
    def strips(
        ctx: Any, kept: Sequence[Tensor], picks_QV: Tensor, offset_QV2: Tensor, *tensors: Tensor
    ) -> Iterator[Any]:
        """Yield each strip with its picks, offset features, first layer, and products.

        Products are those of the guide [Q, K], then of the layers after the first [P, C]; `kept`
        holds those of all strips, or is empty.
        """
        hr_QG, table_RK, w_offset, w_hr, bias, *further = tensors
        each, buffers = 1 + len(further) // 2, Buffers()
        for i, q in enumerate(slices(len(picks_QV), ctx.size)):
            known, picks = kept[i * each : (i + 1) * each], picks_QV[q]
            offset_PO = offset_features(offset_QV2[q], ctx.positional).flatten(0, 1)
            offset_PO = offset_PO.to(hr_QG.dtype)
            hr_QK = known[0] if known else F.linear(hr_QG[q], w_hr, bias)
            x_PK = _first(picks, offset_PO, hr_QK, table_RK, w_offset, buffers)
            products = known or [hr_QK, *_further(x_PK, further)]
            yield q, picks, offset_PO, x_PK, products

    @staticmethod
    def forward(
        ctx: Any,
        positional: str,
        size: int,
        keep: bool,
        picks_QV: Tensor,
        offset_QV2: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        ctx.positional, ctx.size = positional, size
        outputs = len(tensors[-1]) - (picks_QV.shape[1] > 1)
        fused_QL = widen(tensors[0]).new_empty(len(picks_QV), outputs)
        kept: list[Tensor] = []
        for q, picks, *_, products in _Votes.strips(ctx, [], picks_QV, offset_QV2, *tensors):
            fused_QL[q] = blend(widen(products[-1]).view(*picks.shape, -1))
            if keep:
                kept += products
        ctx.inputs = 2 + len(tensors)
        ctx.save_for_backward(picks_QV, offset_QV2, *tensors, *kept)
        return fused_QL

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_QL: Tensor) -> tuple:
        saved = ctx.saved_tensors
        inputs, kept = saved[: ctx.inputs], saved[ctx.inputs :]
        _, _, hr_QG, *others = inputs
        _, _, w_hr, _, *further = others
        by_hr, buffers = torch.empty_like(hr_QG), Buffers()
        by_table, by_offset, *by_layers = (torch.zeros_like(widen(x)) for x in others)
        for q, picks, offset_PO, x_PK, products in _Votes.strips(ctx, kept, *inputs):
            votes_QVC = widen(products[-1]).view(*picks.shape, -1)
            grad_PC = _blend_backward(votes_QVC, grad_QL[q]).flatten(0, 1).to(hr_QG.dtype)
            layer_inputs = [x_PK, *products[1:-1]]
            for i in range(len(further) - 2, -1, -2):
                x_PC = layer_inputs.pop()
                add_product(by_layers[i + 2], grad_PC.t(), x_PC)
                by_layers[i + 3] += grad_PC.sum(dim=0)
                grad_PC = torch.mm(grad_PC, further[i], out=buffers(("by", i), x_PC))
                relu_backward_(grad_PC, x_PC)
            # The other way round, a product with a few columns takes four times as long.
            by_offset += (offset_PO.t() @ grad_PC).t()
            by_table.index_add_(0, picks.flatten(), widen(grad_PC))
            grad_QK = buffers("by guide", hr_QG[q], len(w_hr))
            torch.sum(grad_PC.view(*picks.shape, -1), dim=1, out=grad_QK)
            add_product(by_layers[0], grad_QK.t(), hr_QG[q])
            by_layers[1] += grad_QK.sum(dim=0)
            torch.mm(grad_QK, w_hr, out=by_hr[q])
        totals = zip((by_table, by_offset, *by_layers), others, strict=True)
        return *[None] * 5, by_hr, *(total.to(x.dtype) for total, x in totals)


class Upsampler(nn.Module):
    """Way from LR codes to HR pixels: codes of neighbours, or interpolation."""

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.kind, self.ratio = config.upsampling, config.shuffle_ratio
        self.has_offset = self.kind in ("implicit", "nearest")
        """True if HR pixels ask LR neighbours and know their offset from them."""
        self.outputs = config.latent_bands + (self.kind == "implicit")
        """Channels of one vote: latent bands, and a logit if votes are weighed."""
        if self.kind == "pixel_shuffle":
            self.expand = nn.Linear(channels, channels * self.ratio**2)

    def prepare(self, lr_BhwC: Tensor) -> Tensor:
        """Return the LR codes; pixel_shuffle rearranges them to HR size."""
        if self.kind != "pixel_shuffle":
            return lr_BhwC
        x = F.pixel_shuffle(self.expand(lr_BhwC).permute(0, 3, 1, 2), self.ratio)
        return x.permute(0, 2, 3, 1)

    def interpolate(self, lr_BhwK: Tensor, geometry: Geometry) -> Tensor:
        """Return the code of every query [Q, K] for the kinds without an offset."""
        size = geometry.hr_size
        if self.kind == "pixel_shuffle":
            if tuple(lr_BhwK.shape[1:3]) != size:
                raise UserError(
                    f"model.shuffle_ratio: found {self.ratio}, which makes {lr_BhwK.shape[1]}x"
                    f"{lr_BhwK.shape[2]} of the LR-HSI, expected the HR size {size[0]}x{size[1]}"
                )
            return lr_BhwK.flatten(0, 2)
        x = F.interpolate(lr_BhwK.permute(0, 3, 1, 2), size=size, mode=self.kind)
        return x.permute(0, 2, 3, 1).flatten(0, 2)

    def votes(self, lr_BhwK: Tensor, geometry: Geometry) -> tuple[Tensor, Tensor, Tensor]:
        """Return a table of codes [R, K], and its row [Q, V] and offset [Q, V, 2] for every vote.

        Kinds without an offset [Q, 1, 0] have one vote per query, whose code is row q.
        """
        batch = len(lr_BhwK)
        if self.has_offset:
            return geometry.table(lr_BhwK), geometry.picks(batch), geometry.offsets(batch)
        codes_QK = self.interpolate(lr_BhwK, geometry)
        picks_Q1 = torch.arange(len(codes_QK), device=codes_QK.device)[:, None]
        return codes_QK, picks_Q1, codes_QK.new_empty(len(codes_QK), 1, 0)


class ImplicitMLP(nn.Module):
    """The pointwise network of one branch, evaluated for all votes of all pixels.

    `lr` and `hr` are the channels of the LR parts and of the HR part. The released column order
    [lr[0], hr, lr[1:], offset] is kept, so that released weights fit.
    """

    def __init__(
        self, config: ModelConfig, lr: Sequence[int], hr: int, positional: str = "none"
    ) -> None:
        super().__init__()
        self.positional = positional
        self.upsampler = Upsampler(config, sum(lr))
        offset = 2 + 4 * OCTAVES if positional == "fourier" else 2
        self.columns = [lr[0], hr, *lr[1:], offset * self.upsampler.has_offset]
        sizes = [sum(self.columns), *config.mlp_widths, self.upsampler.outputs]
        # Any, because torch types what modules hold as `Tensor | Module`.
        self.layers: Any = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))

    def forward(
        self, lr_BhwC: Sequence[Tensor], hr_BHWG: Tensor, geometry: Geometry, strips: Strips
    ) -> Tensor:
        """Return the fused latent map [B, H, W, L]."""
        weight, bias = self.layers[0].weight, self.layers[0].bias
        w_lr0, w_hr, *w_lr_rest, w_offset = weight.split(self.columns, dim=1)
        w_lr = torch.cat([w_lr0, *w_lr_rest], dim=1)
        # Linear maps commute with picking and interpolation, so this one runs at LR size.
        lr_BhwK = F.linear(self.upsampler.prepare(torch.cat(list(lr_BhwC), dim=-1)), w_lr)
        hidden = [p for layer in self.layers[1:] for p in (layer.weight, layer.bias)]
        hr_QG = hr_BHWG.flatten(0, 2)
        table_RK, picks_QV, offset_QV2 = self.upsampler.votes(lr_BhwK, geometry)
        if self.positional == "raster" and self.upsampler.has_offset:
            offset_QV2 = offset_QV2 + geometry.raster_N2.repeat(len(hr_BHWG), 1)[:, None]
        # Under autocast, products are computed in its type and sums in float32.
        tensors = for_products(hr_QG, table_RK, w_offset, w_hr, bias, *hidden)
        size = strip_size(hr_QG, strips.queries, QUERIES)
        keep = keeps_products(strips, tensors)
        with torch.autocast(hr_QG.device.type, enabled=False):
            fused_QL = _Votes.apply(self.positional, size, keep, picks_QV, offset_QV2, *tensors)
        return fused_QL.view(*hr_BHWG.shape[:3], -1)
