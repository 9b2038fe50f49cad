"""The network of every configuration, written for reading: whole images, autograd, no tricks.

It borrows the parameters of a `FeINFN` and the sampling geometry.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from feinfn.methods.feinfn.geometry import Geometry, offset_features, sampling_geometry
from feinfn.methods.feinfn.model import FeINFN


def codes(upsampler: nn.Module, lr_BhwC: Tensor, geometry: Geometry) -> list[Tensor]:
    """Return the LR code at every HR pixel [B, N, C], once per vote."""
    if upsampler.kind not in ("implicit", "nearest"):
        whole = upsampler.interpolate(upsampler.prepare(lr_BhwC), geometry)
        return [whole.view(len(lr_BhwC), -1, lr_BhwC.shape[-1])]
    padded = F.pad(lr_BhwC, (0, 0, 1, 1, 1, 1)).flatten(1, 2)
    return [padded[:, pick] for pick in geometry.picks_NV.unbind(1)]


def offsets(kind: str, geometry: Geometry, positional: str, batch: int) -> list[list[Tensor]]:
    """Return the offset columns [B, N, 2 or more] of every vote; none where codes are
    interpolated."""
    if kind not in ("implicit", "nearest"):
        return [[]]
    found = []
    for offset in geometry.offset_NV2.unbind(1):
        if positional == "raster":
            offset = offset + geometry.raster_N2
        found.append([offset_features(offset, positional).expand(batch, -1, -1)])
    return found


def blend(votes: list[Tensor]) -> Tensor:
    """Return the votes [B, N, L + 1] weighed by the softmax of their last entries."""
    if len(votes) == 1:
        return votes[0]
    stacked = torch.stack(votes)
    return (torch.softmax(stacked[..., -1:], 0) * stacked[..., :-1]).sum(0)


def implicit(mlp: nn.Module, parts: list[Tensor], hr_BHWG: Tensor, geometry: Geometry) -> Tensor:
    """Return the fused map [B, H, W, L] of an implicit network."""
    votes = []
    columns = offsets(mlp.upsampler.kind, geometry, mlp.positional, len(hr_BHWG))
    sampled = codes(mlp.upsampler, torch.cat(parts, -1), geometry)
    for code, offset in zip(sampled, columns, strict=True):
        first, rest = code.split([parts[0].shape[-1], code.shape[-1] - parts[0].shape[-1]], -1)
        x = torch.cat([first, hr_BHWG.flatten(1, 2), rest, *offset], dim=-1)
        for i, layer in enumerate(mlp.layers):
            x = layer(F.relu(x) if i else x)
        votes.append(x)
    return blend(votes).view(*hr_BHWG.shape[:3], -1)


def phase(network: nn.Module, lr_BhwF: Tensor, hr_BHWG: Tensor, geometry: Geometry) -> Tensor:
    """Return the fused phase [B, H, W, L]."""
    batch, height, width, _ = hr_BHWG.shape
    votes = []
    columns = offsets(network.upsampler.kind, geometry, "none", batch)
    for code, offset in zip(codes(network.upsampler, lr_BhwF, geometry), columns, strict=True):
        x = torch.cat([code, hr_BHWG.flatten(1, 2), *offset], dim=-1)
        if network.reviewed:
            x = x.reshape(batch, -1, height, width)
        else:
            x = x.transpose(1, 2).reshape(batch, -1, height, width)
        for i, stage in enumerate(network.stages):
            x = stage.depthwise(stage.pointwise(F.relu(x) if i else x))
        out = x.reshape(batch, height * width, -1)
        votes.append(out if network.reviewed else x.flatten(2).transpose(1, 2))
    return blend(votes).view(batch, height, width, -1)


def polar(x_BCHW: Tensor, shifted: bool) -> tuple[Tensor, Tensor]:
    """Return amplitude and phase [B, H, W, C]."""
    spectrum = torch.fft.fft2(x_BCHW)
    height, width = spectrum.shape[-2:]
    real = torch.outer(*((2 * torch.arange(n)) % n == 0 for n in (height, width)))
    imaginary = torch.where(real, 0.0, spectrum.imag)
    parts = [spectrum.abs(), torch.complex(spectrum.real, imaginary).angle()]
    if shifted:
        parts = [torch.fft.fftshift(part, dim=(-2, -1)) for part in parts]
    return tuple(part.movedim(1, -1) for part in parts)


def fourier(branch: nn.Module, feat: Tensor, guide: Tensor, geometry: Geometry) -> Tensor:
    """Return the latent map [B, L, H, W] fused in the Fourier domain."""
    feat_parts, guide_parts = polar(feat, branch.shifted), polar(guide, branch.shifted)
    if branch.amplitude is not None:
        amplitude = implicit(branch.amplitude, [feat_parts[0]], guide_parts[0], geometry)
    else:
        amplitude = branch.guide_amplitude(guide_parts[0])
    if branch.phase is not None:
        angle = phase(branch.phase, feat_parts[1], guide_parts[1], geometry)
    else:
        angle = branch.guide_phase(guide_parts[1])
    spectrum = torch.polar(torch.ones_like(angle), angle).mul(amplitude).movedim(-1, 1)
    if branch.shifted:
        spectrum = torch.fft.ifftshift(spectrum, dim=(-2, -1))
    image = torch.fft.ifft2(spectrum)
    return image.abs() if branch.inverse == "modulus" else image.real


def activate(one: nn.Module, kind: str, z: Tensor) -> Tensor:
    """Return the decoder's filter of z."""
    if kind == "gabor":
        return (torch.exp(1j * one.omega_0 * z - (one.scale_0 * z) ** 2)).real
    if kind == "sine":
        return torch.sin(one.omega_0 * z)
    if kind == "gaussian":
        return torch.exp(-((one.scale_0 * z) ** 2))
    return getattr(F, kind)(z)


def forward(model: FeINFN, msi: Tensor, lms: Tensor, lr_hsi: Tensor) -> Tensor:
    """Return what `model(msi, lms, lr_hsi)` should."""
    config = model.config
    guide = model.spatial_encoder(torch.cat([msi, lms], dim=1))
    feat = model.spectral_encoder(lr_hsi)
    rule = "nearest" if config.upsampling == "nearest" else config.border
    sizes = (tuple(feat.shape[-2:]), tuple(guide.shape[-2:]))
    geometry = sampling_geometry(*sizes, rule, lms.dtype, lms.device)
    maps = []
    if model.spatial_fusion is not None:
        parts = [feat.movedim(1, -1)]
        if (kernel := model.spatial_fusion.kernel) is not None:
            weight = kernel.to(feat).expand(feat.shape[1], 1, 3, 3)
            edges = F.conv2d(feat, weight, padding=1, groups=feat.shape[1])
            parts.append(edges.movedim(1, -1))
        fused = implicit(model.spatial_fusion.mlp, parts, guide.movedim(1, -1), geometry)
        maps.append(fused.movedim(-1, 1))
    if model.fourier_fusion is not None:
        maps.append(fourier(model.fourier_fusion, feat, guide, geometry))
    spatial, q = maps[0], maps[-1]
    decoder = model.decoder
    for i, (key, query) in enumerate(zip(decoder.k, decoder.q, strict=True)):
        k = F.relu(key(spatial if i == 0 else torch.cat([q, spatial], dim=1)))
        one = decoder.filters[min(i, len(decoder.filters) - 1)]
        q = k * activate(one, config.activation, query(q))
    return lms + decoder.last(q)
