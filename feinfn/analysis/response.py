"""Frequency response: the frequencies in the decoder's hidden features.

Legend: B batch, H W image size, L latent bands, C decoder channels, Q pixels, R radial bands.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.analysis.radial import power, radial_bands
from feinfn.methods.feinfn.decoder import VALUES, Decoder, activate
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.feinfn.strips import QUERIES, Buffers, slices
from feinfn.methods.network import fuse
from feinfn.protocols.simulate import Inputs


def decoder_inputs(model: FeINFN, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return the two latent maps [B, H, W, L] that enter the decoder for these inputs."""
    latent_maps: list[Tensor] = []

    def keep(_: nn.Module, maps: tuple) -> None:
        latent_maps.extend(maps[:2])

    handle = model.decoder.register_forward_pre_hook(keep)
    try:
        fuse(model, inputs)
    finally:
        handle.remove()
    return latent_maps[0], latent_maps[1]


@torch.inference_mode()
def decoder_features(
    decoder: Decoder, spatial_HWL: Tensor, frequency_HWL: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the filter's and the layer's output of every decoder layer, [C, H, W] each.

    The first is filter(Q_i q_i), the second q_(i+1), its product with the gate; both in float32 or
    wider, one layer in memory at a time.
    """
    height, width = spatial_HWL.shape[:2]
    spatial_QL, q_QC = spatial_HWL.flatten(0, 1), frequency_HWL.flatten(0, 1)
    for i, (key, query) in enumerate(zip(decoder.k, decoder.q, strict=True)):
        assert isinstance(key, nn.Conv2d)
        assert isinstance(query, nn.Conv2d)
        filter_i = decoder.filters[min(i, len(decoder.filters) - 1)]
        values = [getattr(filter_i, name) for name in VALUES[decoder.kind]]
        filtered_QC = q_QC.new_empty(len(q_QC), query.out_channels)
        gated_QC = torch.empty_like(filtered_QC)
        buffers = Buffers()
        for s in slices(len(q_QC), QUERIES):
            gate_input = torch.cat([q_QC[s], spatial_QL[s]], dim=1) if i else spatial_QL[s]
            gate = F.linear(gate_input, key.weight.flatten(1), key.bias).relu()
            z_QC = F.linear(q_QC[s], query.weight.flatten(1), query.bias)
            filtered_QC[s] = activate(decoder.kind, z_QC, values, buffers)[0]
            gated_QC[s] = gate * filtered_QC[s]
        q_QC = gated_QC
        yield tuple(x.t().unflatten(1, (height, width)) for x in (filtered_QC, gated_QC))


def frequency_response(model: FeINFN, inputs: Inputs, bands: int = 16) -> dict[str, np.ndarray]:
    """Return the share of power in each radial band of the decoder's features, [R] each.

    Only the first image counts. Keys are `input` (the latent map that enters the filters), then
    `filter_1`, `layer_1`, ... Shares sum to 1, so that features of different gain can be compared;
    a band without bins is NaN. White noise gives every band the share of its bins.
    """
    spatial_BHWL, frequency_BHWL = decoder_inputs(model, inputs)
    powers = {"input": power(frequency_BHWL[0].movedim(-1, 0), bands)}
    features = decoder_features(model.decoder, spatial_BHWL[0], frequency_BHWL[0])
    for i, (filtered_CHW, gated_CHW) in enumerate(features, 1):
        powers[f"filter_{i}"] = power(filtered_CHW, bands)
        powers[f"layer_{i}"] = power(gated_CHW, bands)
    index_HW = radial_bands((spatial_BHWL.shape[1], spatial_BHWL.shape[2]), bands)
    bins_R = torch.bincount(index_HW[index_HW >= 0], minlength=bands).numpy()
    powers = {name: mean_R * bins_R for name, mean_R in powers.items()}
    # A feature without power has zeros.
    return {name: power_R / (np.nansum(power_R) or 1) for name, power_R in powers.items()}
