"""Studies of wavelets, codes, features and changes: closed forms, and the embedded sample."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from feinfn.analysis.change import change_bin, change_pixel, effect_of, reach, scale_conjugates
from feinfn.analysis.gabor import closed_spreads, gabor, measured_spreads, sampled_spreads
from feinfn.analysis.latent import code_spectra, latent_spectra
from feinfn.analysis.radial import (
    band_centres,
    circular_correlation,
    power,
    radial_bands,
    similarity,
)
from feinfn.analysis.response import decoder_features, decoder_inputs, frequency_response
from feinfn.analysis.spectra import angles_deg, distinct_pixels, spectra_at
from feinfn.config import DataConfig, ModelConfig
from feinfn.data.pairs import simulated_inputs
from feinfn.data.source import load_scene
from feinfn.errors import UserError
from feinfn.methods.feinfn.model import FeINFN
from feinfn.methods.network import fuse
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import Pair, spatial

SMALL = ModelConfig(feat_dim=6, guide_dim=6, mlp_widths=(8,), decoder_width=8, spectral_blocks=1)


@pytest.fixture(scope="module")
def pair() -> Pair:
    scene = load_scene(DataConfig(), "superballs_ms")
    scene = replace(scene, raw_SHW=np.ascontiguousarray(scene.raw_SHW[:, :48, :64]))
    return simulated_inputs(scene, PROTOCOLS["cave_x4"], torch.device("cpu")).inputs


def network(**fields: object) -> FeINFN:
    torch.manual_seed(0)
    return FeINFN(replace(SMALL, **fields)).eval()


RATIOS = [0.0, 0.5, 1.0, 3.0, 8.0]


@pytest.mark.parametrize("kind", ["complex", "real"])
@pytest.mark.parametrize("ratio", RATIOS)
def test_spreads_from_samples_are_the_formulas(kind, ratio):
    for scale in (1.0, 10.0, -3.0):
        found = sampled_spreads(ratio * scale, scale, kind)
        expected = closed_spreads(ratio * scale, scale, kind)
        assert found.time == pytest.approx(expected.time, rel=1e-9)
        assert found.frequency == pytest.approx(expected.frequency, rel=1e-9)
        assert expected.product >= 0.5 * (1 - 1e-12)


def test_products_against_the_bound():
    assert closed_spreads(30, 10, "complex").product == 0.5
    assert closed_spreads(0, 10).product == pytest.approx(0.5)
    # Two lobes far from zero: sqrt(1 + r^2) / 2.
    assert closed_spreads(200, 10).product == pytest.approx(math.sqrt(401) / 2)
    assert closed_spreads(200, 10, "one_sided").product == pytest.approx(0.5)
    # Half a Gaussian's spectrum, which is below the bound: no single function has it.
    half = closed_spreads(0, 10, "one_sided").product
    assert half == pytest.approx(math.sqrt(1 - 2 / math.pi) / 2)


@pytest.mark.parametrize("ratio", RATIOS)
def test_one_sided_spreads_converge_with_the_window(ratio):
    expected = closed_spreads(ratio, 1, "one_sided").product
    errors = [
        abs(sampled_spreads(ratio, 1, "one_sided", 4096 * n, 12.0 * n).product - expected)
        for n in (1, 2, 4)
    ]
    # The jump at zero is met by a sum of first order.
    assert errors[2] < 0.5 * errors[1] + 1e-9
    assert errors[1] < 0.6 * errors[0] + 1e-9
    assert errors[2] < 1e-3


def test_analytic_wavelet_has_positive_frequencies_only_and_no_spread_in_time():
    step = 0.01
    x_N = (np.arange(2**15) - 2**14) * step
    psi_N = gabor(x_N, 3.0, 1.0, "analytic")
    np.testing.assert_allclose(psi_N.real, gabor(x_N, 3.0, 1.0), atol=1e-12)
    spectrum = abs(np.fft.fft(psi_N)) ** 2
    assert spectrum[len(x_N) // 2 + 1 :].sum() < 1e-4 * spectrum.sum()
    found = measured_spreads(psi_N, step)
    assert found.frequency == pytest.approx(closed_spreads(3, 1, "analytic").frequency, rel=1e-3)
    # |psi|^2 falls as (jump / 2 pi x)^2 with jump 2 sqrt(pi) exp(-r^2 / 4).
    norm = math.sqrt(math.pi / 2) * (1 + math.exp(-4.5))
    slope = 2 * (2 * math.sqrt(math.pi) * math.exp(-2.25) / (2 * math.pi)) ** 2 / norm
    squares = [sampled_spreads(3, 1, "analytic", 2**15, n).time ** 2 for n in (50.0, 100.0)]
    assert (squares[1] - squares[0]) / 50 == pytest.approx(slope, rel=0.01)
    assert closed_spreads(3, 1, "analytic").time == math.inf


def test_wavelet_is_the_decoders_filter():
    model = network(decoder_layers=1)
    x = torch.linspace(-0.3, 0.3, 49)
    decoder = model.decoder
    with torch.no_grad():
        decoder.q[0].weight.zero_()[:, 0] = 1
        decoder.q[0].bias.zero_()
    maps = x[None, :, None].expand(1, 49, SMALL.latent_bands)
    (filtered, _), *_ = decoder_features(decoder, maps, maps)
    expected = gabor(x.double().numpy(), SMALL.omega_0, SMALL.scale_0)
    np.testing.assert_allclose(filtered[3, 0].numpy(), expected, atol=1e-5)


def test_power_sums_to_the_variance_and_finds_a_wave():
    x = torch.randn(3, 12, 20, generator=torch.Generator().manual_seed(1))
    index = radial_bands((12, 20), 5)
    bins = torch.bincount(index[index >= 0], minlength=5).numpy()
    variance = x.double().var(dim=(1, 2), correction=0).sum().item()
    assert (power(x, 5) * bins).sum() == pytest.approx(variance, rel=1e-6)
    col = torch.arange(64)
    wave = torch.cos(2 * math.pi * 12 / 64 * col).expand(1, 32, 64)
    found = power(wave, 8)
    assert found.argmax() == 3
    assert found[3] / found.sum() == pytest.approx(1, abs=1e-6)
    assert abs(band_centres(8)[3] - 12 / 64) <= 1 / 32


def test_circular_correlation_knows_turned_and_mirrored_angles():
    rng = np.random.default_rng(0)
    angle = rng.uniform(-np.pi, np.pi, 400)
    assert circular_correlation(angle, angle + 1) == pytest.approx(1)
    assert circular_correlation(angle, 2 - angle) == pytest.approx(-1)
    assert abs(circular_correlation(angle, rng.uniform(-np.pi, np.pi, 400))) < 0.15
    pairs = [
        (np.sin(angle[i] - angle[j]), np.sin(2 * angle[i] - 2 * angle[j]))
        for i in range(20)
        for j in range(i)
    ]
    a, b = np.array(pairs).T
    expected = (a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())
    assert circular_correlation(angle[:20], 2 * angle[:20]) == pytest.approx(expected)


def test_similarity_of_equal_scaled_and_unrelated_spectra():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.fft.fft2(torch.randn(4, 15, 15, generator=generator)).numpy() for _ in "xy")
    same = similarity(x, 3 * x, 4)
    for values in (same.amplitude_cosine, same.amplitude_correlation, same.phase_cosine):
        np.testing.assert_allclose(values, 1)
    np.testing.assert_allclose(same.phase_correlation, 1)
    turned = similarity(x, -x, 4)
    np.testing.assert_allclose(turned.phase_cosine, -1)
    np.testing.assert_allclose(turned.amplitude_correlation, 1)
    other = similarity(x, y, 4)
    assert np.abs(other.phase_cosine[1:]).max() < 0.3
    assert np.abs(other.amplitude_correlation[1:]).max() < 0.3
    assert np.isnan(similarity(x, x, 40).phase_cosine).any()


def test_codes_of_one_band_limited_image_are_one_at_any_offset():
    generator = torch.Generator().manual_seed(0)
    y = torch.randn(3, 9, 9, generator=generator, dtype=torch.float64)
    # Trigonometric interpolation to 36 x 36, then every fourth pixel from the offset on.
    spectrum = torch.zeros(3, 36, 36, dtype=torch.complex128)
    keep = torch.fft.fftfreq(9, 1 / 9).long() % 36
    spectrum[:, keep[:, None], keep] = torch.fft.fft2(y)
    fine = torch.fft.ifft2(spectrum).real
    for offset in (0, 2):
        found = code_spectra(fine, fine[:, offset::4, offset::4], offset, 2)
        np.testing.assert_allclose(found.lr_Fhw, found.hr_Fhw, atol=1e-9 * 36**2)
        assert found.similarity.phase_cosine == pytest.approx(1)
    wrong = code_spectra(fine, fine[:, 2::4, 2::4], 0, 2).similarity.phase_cosine
    assert wrong[-1] < 0.5


@pytest.mark.parametrize("name", ["cave_x4", "dhif_x4", "dhif_x8"])
def test_protocols_tell_where_their_lr_pixels_lie(name):
    protocol, rows = PROTOCOLS[name], torch.arange(64.0, dtype=torch.float64)
    ramp = rows[:, None].expand(64, 64)[None, None]
    found = spatial(protocol)(ramp)[0, 0, :, 4]
    expected = protocol.offset_px + protocol.ratio * torch.arange(64 // protocol.ratio)
    # Borders bend the ramp.
    torch.testing.assert_close(found[2:-2], expected[2:-2].double())


def test_latent_spectra_of_the_sample(pair):
    found = latent_spectra(network(), pair, offset_px=2, bands=3)
    assert found.hr_Fhw.shape == found.lr_Fhw.shape == (6, 11, 15)
    assert {p.shape for p in found.panels().values()} == {(11, 15)}
    assert found.panels()["hr_amplitude"].argmax() == 11 * 15 // 2
    first, last = found.similarity.phase_cosine[[0, -1]]
    assert first > 0.5 > last
    again = latent_spectra(network(), pair, offset_px=2)
    np.testing.assert_array_equal(found.lr_Fhw, again.lr_Fhw)
    double = Pair(
        *(torch.cat([x, x]) for x in pair.inputs()), pair.reference_BSHW.repeat(2, 1, 1, 1)
    )
    with pytest.raises(UserError, match="batch of one"):
        latent_spectra(network(), double, offset_px=2)


@pytest.mark.parametrize("kind", ["gabor", "relu", "gelu", "leaky_relu", "sine", "gaussian"])
def test_decoder_features_end_in_the_networks_residual(kind, pair):
    model = network(activation=kind)
    spatial, frequency = decoder_inputs(model, pair)
    (*_, (_, last)) = decoder_features(model.decoder, spatial[0], frequency[0])
    with torch.no_grad():
        residual = model.decoder.last(last[None])[0]
        expected = model(*pair.inputs())[0] - pair.lms_BSHW[0]
    torch.testing.assert_close(residual, expected, atol=2e-5, rtol=1e-4)
    found = frequency_response(model, pair, bands=6)
    assert list(found) == ["input", *(f"{n}_{i}" for i in (1, 2, 3) for n in ("filter", "layer"))]
    assert all(np.nansum(p) == pytest.approx(1) for p in found.values())
    assert not model.decoder._forward_pre_hooks


def test_white_noise_gives_every_band_the_share_of_its_bins(pair, monkeypatch):
    noise_BHWL = torch.randn(1, 48, 64, 400, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(
        "feinfn.analysis.response.decoder_inputs", lambda *_: (noise_BHWL[..., :12], noise_BHWL)
    )
    monkeypatch.setattr("feinfn.analysis.response.decoder_features", lambda *_: iter(()))
    found = frequency_response(network(), pair, bands=6)["input"]
    index = radial_bands((48, 64), 6)
    bins = torch.bincount(index[index >= 0], minlength=6).numpy()
    np.testing.assert_allclose(found, bins / bins.sum(), rtol=0.02)
    assert found[-1] > 20 * found[0]


def test_gabor_filters_reach_higher_frequencies_than_relus():
    row = torch.arange(48.0)[:, None, None] / 48
    maps = (0.1 * torch.sin(2 * math.pi * row)).expand(48, 48, SMALL.latent_bands)
    low = []
    for kind in ("gabor", "leaky_relu"):
        decoder = network(activation=kind, decoder_layers=1).decoder
        with torch.no_grad():
            decoder.q[0].weight.fill_(2 / SMALL.latent_bands)
            decoder.q[0].bias.zero_()
        ((filtered_CHW, _),) = decoder_features(decoder, maps, maps)
        found = power(filtered_CHW, 12)
        low.append(found[:1].sum() / found.sum())
    # One period in 48 pixels lies in the first of 12 bands; the filter makes overtones of it.
    assert low[0] < 0.8 < low[1]


def test_one_bin_is_a_plane_wave_and_one_pixel_a_point():
    x = torch.randn(2, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum = torch.fft.fft2(x)
    row, col = torch.arange(8.0).double()[:, None] / 8, torch.arange(12.0).double() / 12
    angle = 2 * math.pi * (3 * row + 2 * col)
    bins = spectrum[:, 3, 2, None, None]
    wave = 2 / 96 * (bins.abs() * torch.cos(angle + bins.angle()))
    torch.testing.assert_close(change_bin(x, 3, 2, 2.0) - x, wave)
    mean = x.mean(dim=(1, 2), keepdim=True).expand_as(x)
    torch.testing.assert_close(x - change_bin(x, 0, 0, 0.0), mean)
    assert reach((change_bin(x, 3, 2, 2.0) - x)[0].numpy()) == pytest.approx(2 / 3)
    assert reach((change_bin(x, 0, 0, 0.0) - x)[0].numpy()) == pytest.approx(1)
    assert reach((change_pixel(x, 3, 2, 2.0) - x)[0].numpy()) == pytest.approx(1 / 96)
    assert reach(np.zeros((4, 4))) == 0
    with pytest.raises(UserError, match="inside 8x12"):
        change_bin(x, 8, 0, 2.0)
    assert (scale_conjugates(x, 3, 2, 0.0) == 0).nonzero().tolist() == [
        [c, *place] for c in (0, 1) for place in ((3, 2), (5, 10))
    ]


def test_local_changes_reach_as_far_as_their_domain_lets_them(pair):
    model = network()
    before = fuse(model, pair)
    point = effect_of(model, pair, "spatial", lambda x: change_pixel(x, 20, 30, 3.0))
    assert np.argwhere(point > 0).tolist() == [[20, 30]]
    wave = effect_of(model, pair, "amplitude", lambda x: scale_conjugates(x, 2, 3, 3.0))
    assert (wave > 0).mean() > 0.9
    code = effect_of(model, pair, "code", lambda x: change_bin(x, 1, 2, 1.5))
    assert code.shape == (48, 64)
    assert (code > 0).mean() > 0.9
    assert not effect_of(model, pair, "phase", torch.clone).any()
    torch.testing.assert_close(fuse(model, pair), before, rtol=0, atol=0)
    with pytest.raises(UserError, match="code, spatial"):
        effect_of(network(fourier_branch=False), pair, "fourier", torch.clone)


def test_spectra_of_pixels(pair):
    # In float64: two ways of adding 31 squares in float32 may differ by more than 1e-6.
    cube = pair.reference_BSHW[0].double().numpy()
    pixels = distinct_pixels(cube, 3)
    found = spectra_at(cube, pixels)
    assert found.shape == (3, 31)
    assert len(set(pixels)) == 3
    assert np.linalg.norm(found[0]) == pytest.approx(np.linalg.norm(cube, axis=0).max())
    assert angles_deg(found, 2 * found) == pytest.approx(0, abs=1e-3)
    assert angles_deg(np.array([[1.0, 0], [0, 0]]), np.array([[1.0, 1], [1, 0]]))[0] == (
        pytest.approx(45)
    )
    assert angles_deg(found[:1], found[1:2])[0] > 10
    with pytest.raises(UserError, match="inside 48x64"):
        spectra_at(cube, [(48, 0)])
    with pytest.raises(UserError, match="count"):
        distinct_pixels(cube, 0)
