"""Q2n, UIQI and the indices without a reference against brute force, libraries and laws."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_metrics import PAIRS, pair

from feinfn.errors import UserError
from feinfn.metrics.evaluation import evaluate
from feinfn.metrics.hypercomplex import product_signs, q2n
from feinfn.metrics.indices import scc
from feinfn.metrics.no_reference import pairwise_quality, qnr
from feinfn.metrics.windows import uiqi_per_band


def image(seed: int, bands: int = 4, height: int = 64, width: int = 64) -> torch.Tensor:
    """Smooth random bands in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, bands, height // 8, width // 8, generator=generator).double()
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]


def noisy(x: torch.Tensor, seed: int, sigma: float = 0.05) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (x + sigma * torch.randn(x.shape, generator=generator).double()).clamp(0, 1)


def quality(a: np.ndarray, b: np.ndarray) -> float:
    """The universal quality index of one window, sample moments."""
    (va, cov), (_, vb) = np.cov(a.ravel(), b.ravel())
    return 4 * cov * a.mean() * b.mean() / ((va + vb) * (a.mean() ** 2 + b.mean() ** 2))


def hamilton(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """The product of quaternions [..., 4]."""
    a, b, c, d = np.moveaxis(p, -1, 0)
    e, f, g, h = np.moveaxis(q, -1, 0)
    parts = [
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    ]
    return np.stack(parts, axis=-1)


def quaternion_quality(fused: np.ndarray, reference: np.ndarray) -> float:
    """Q4 of one block of integers [4, H, W], term by term."""
    z1 = reference.reshape(4, -1).T.astype(float)
    z2 = fused.reshape(4, -1).T.astype(float)
    mean, std = z1.mean(axis=0), z1.std(axis=0, ddof=1)
    z1, z2 = (z1 - mean) / std + 1, (z2 - mean) / std + 1
    conjugate = np.array([1, -1, -1, -1])
    n = len(z1)
    m1, m2 = z1.mean(axis=0), z2.mean(axis=0)
    moment = hamilton(z1, z2 * conjugate).mean(axis=0) - hamilton(m1, m2 * conjugate)
    covariance = np.linalg.norm(moment) * n / (n - 1)
    variances = z1.var(axis=0, ddof=1).sum() + z2.var(axis=0, ddof=1).sum()
    norm1, norm2 = np.linalg.norm(m1), np.linalg.norm(m2)
    return 2 * covariance / variances * 2 * norm1 * norm2 / (norm1**2 + norm2**2)


def test_q4_equals_quaternions_term_by_term():
    reference = image(1)
    fused = noisy(reference, 2)
    a, b = (np.rint(x.numpy() * 2047) for x in (fused, reference))
    blocks = [np.s_[:, y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
    expected = np.mean([quaternion_quality(a[s], b[s]) for s in blocks])
    assert q2n(fused, reference) == pytest.approx(expected, rel=1e-10)


def test_products_of_units_keep_norms_and_conjugates():
    """The algebra up to the octonions is normed: |p q| = |p| |q|."""
    rng = np.random.default_rng(3)
    units = np.arange(8)
    p, q = rng.normal(size=(2, 8))
    terms = product_signs(8).numpy() * np.outer(p, q)
    product = [terms[units, units ^ k].sum() for k in units]
    assert np.linalg.norm(product) == pytest.approx(np.linalg.norm(p) * np.linalg.norm(q))
    signs = product_signs(256)
    assert (signs[torch.arange(1, 256), torch.arange(1, 256)] == -1).all()
    off = ~torch.eye(255, dtype=torch.bool)
    assert (signs[1:, 1:][off] == -signs[1:, 1:].T[off]).all()


def test_q2n_of_one_band_is_the_quality_index_of_normalised_blocks():
    reference = image(4, bands=1, height=32, width=32)
    fused = noisy(reference, 5)
    a, b = (np.rint(x[0].numpy() * 2047) for x in (fused, reference))
    mean, std = b.mean(), b.std(ddof=1)
    expected = quality((a - mean) / std + 1, (b - mean) / std + 1)
    assert q2n(fused, reference) == pytest.approx(abs(expected), rel=1e-10)


@pytest.mark.parametrize("axis", [1, 2])
def test_q2n_mirrors_to_whole_blocks(axis):
    reference = image(6, height=64, width=64).narrow(axis, 0, 48)
    fused = noisy(reference, 7)
    a, b = (torch.cat([x, x.narrow(axis, 32, 16).flip(axis)], dim=axis) for x in (fused, reference))
    assert q2n(fused, reference) == q2n(a, b)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 6), st.floats(0.01, 0.2))
def test_indices_are_bounded_and_know_identity(seed, bands, sigma):
    reference = image(seed, bands)
    fused = noisy(reference, seed + 1, sigma)
    assert 0 <= q2n(fused, reference) < 1
    assert -1 <= uiqi_per_band(fused, reference).min() <= uiqi_per_band(fused, reference).max() < 1
    assert -1 <= scc(fused, reference) < 1
    assert q2n(reference, reference) == pytest.approx(1, rel=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.permutations(range(5)))
def test_order_of_bands_does_not_matter_to_the_printed_indices(seed, order):
    reference = image(seed, 5)
    fused = noisy(reference, seed + 1)
    values = evaluate(fused, reference, 4)
    assert evaluate(fused[order], reference[order], 4) == pytest.approx(values, rel=1e-9)


def test_uiqi_slides_over_every_position():
    reference = image(8, bands=1, height=40, width=40)
    fused = noisy(reference, 9)
    a, b = fused[0].numpy(), reference[0].numpy()
    windows = [np.s_[y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    expected = np.mean([quality(a[s], b[s]) for s in windows])
    assert uiqi_per_band(fused, reference).item() == pytest.approx(expected, rel=1e-10)


def test_constant_windows_compare_their_means():
    dark = torch.linspace(0.01, 0.3, 99).double()[:, None, None].expand(-1, 40, 40).contiguous()
    quality_S = uiqi_per_band(dark, 3 * dark)
    torch.testing.assert_close(quality_S, torch.full_like(quality_S, 0.6), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["noisy64_r4", "blur128_r4", "scaled64_r8"])
def test_torchmetrics_agrees_where_its_definition_is_the_same(name):
    functions = pytest.importorskip("torchmetrics.functional.image")
    fused, reference = pair(name)
    ratio = PAIRS[name]["ratio"]
    values = evaluate(fused, reference, ratio, indices=("sam", "ergas"))
    a, b = fused[None], reference[None]
    ergas = functions.error_relative_global_dimensionless_synthesis(a, b, ratio)
    assert values["ergas"] == pytest.approx(ergas.item(), rel=1e-12)
    sam = math.degrees(functions.spectral_angle_mapper(a, b))
    # acos near 1: one unit in the last place of the cosine is 1e-6 degrees.
    assert values["sam"] == pytest.approx(sam, rel=1e-9, abs=2e-6)


def shrink(x: torch.Tensor, ratio: int = 4) -> torch.Tensor:
    return torch.nn.functional.avg_pool2d(x, ratio)


def test_qnr_equals_loops_over_pairs_and_blocks():
    fused = noisy(image(10, bands=3), 11)
    lr_hsi, msi = shrink(image(10, bands=3)), image(12, bands=2)

    def mean_quality(a, b, side):
        rows, columns = a.shape[0] // side, a.shape[1] // side
        cut = [
            np.s_[i * side : (i + 1) * side, j * side : (j + 1) * side]
            for i in range(rows)
            for j in range(columns)
        ]
        return np.mean([quality(a[s], b[s]) for s in cut])

    f, l, m, k = (x.numpy() for x in (fused, lr_hsi, msi, shrink(msi)))  # noqa: E741
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    d_lambda = np.mean(
        [abs(mean_quality(f[i], f[j], 32) - mean_quality(l[i], l[j], 8)) for i, j in pairs]
    )
    d_s = np.mean(
        [
            abs(mean_quality(f[i], m[j], 32) - mean_quality(l[i], k[j], 8))
            for i in range(3)
            for j in range(2)
        ]
    )
    expected = {"d_lambda": d_lambda, "d_s": d_s, "qnr": (1 - d_lambda) * (1 - d_s)}
    assert qnr(fused, lr_hsi, msi) == pytest.approx(expected, rel=1e-9)


def test_no_distortion_where_both_scales_show_the_same():
    lr_hsi, msi = image(13), image(14, bands=2)
    repeated = [x.repeat_interleave(4, 1).repeat_interleave(4, 2) for x in (lr_hsi, msi)]
    found = qnr(repeated[0], lr_hsi, repeated[1])
    assert found == pytest.approx({"d_lambda": 0, "d_s": 0, "qnr": 1}, abs=1e-12)


def test_quality_of_a_band_with_itself_is_one():
    x = image(16, bands=3)
    x[1] = 0
    torch.testing.assert_close(
        pairwise_quality(x, x, 16).diagonal(), torch.ones(3, dtype=torch.float64)
    )


def test_qnr_names_what_does_not_fit():
    fused, msi = image(17), image(18, bands=2)
    lr_hsi = shrink(fused)
    with pytest.raises(UserError, match="whole ratio of sizes"):
        qnr(fused, lr_hsi[:, :15], msi)
    with pytest.raises(UserError, match="an MSI of shape"):
        qnr(fused, lr_hsi, msi[:, :32])
    with pytest.raises(UserError, match="blocks of 30 pixels"):
        qnr(fused, lr_hsi, msi, block_px=30)
    with pytest.raises(UserError, match="NaN or inf"):
        qnr(fused * math.nan, lr_hsi, msi)
