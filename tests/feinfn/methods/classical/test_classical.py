"""Every classical method: shapes, sizes, determinism, what it minimises, and real scenes."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from places import SHARED_DATA

from feinfn.config import DataConfig
from feinfn.data.scene import Scene, read_scene
from feinfn.data.source import load_scene, resolve_data
from feinfn.errors import UserError
from feinfn.methods.classical import cnmf, subspace
from feinfn.methods.classical.problem import Problem
from feinfn.methods.classical.registry import CLASSICAL
from feinfn.methods.configs import CLASSICAL_NAMES
from feinfn.metrics.evaluation import evaluate
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.protocol import Protocol
from feinfn.protocols.simulate import Pair, simulate

CROPS = SHARED_DATA / "cave_crop256"
FUSING = sorted(set(CLASSICAL) - {"bicubic"})
NM = {"cave": np.linspace(400, 700, 31), "vnir": np.linspace(400, 1000, 102)}


def test_every_name_has_a_method():
    assert tuple(CLASSICAL) == CLASSICAL_NAMES


def smooth_cube(bands: int, rows: int, cols: int) -> torch.Tensor:
    """Return a cube of three materials in [0, 1], float64 [1, S, H, W]."""
    generator = torch.Generator().manual_seed(0)
    spectra = torch.rand(bands, 3, generator=generator, dtype=torch.float64)
    amounts = torch.rand(3, rows, cols, generator=generator, dtype=torch.float64)
    return torch.einsum("sk,khw->shw", spectra, amounts / amounts.sum(0))[None]


def simulated(scene: Scene, protocol: Protocol) -> Pair:
    return simulate(torch.from_numpy(scene.cube())[None], scene.wavelengths_nm, protocol)


def arrays(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    return pair.lr_hsi_BShw[0].numpy(), pair.msi_BMHW[0].numpy()


@pytest.fixture(scope="module")
def sample() -> list[tuple[Scene, Pair]]:
    data = resolve_data(DataConfig())
    scenes = [load_scene(data, name) for name in data.train[:2]]
    return [(scene, simulated(scene, PROTOCOLS["cave_x4"])) for scene in scenes]


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize(
    ("protocol", "bands", "size"),
    [
        ("cave_x4", 31, (16, 24)),
        ("cave_x8", 31, (24, 16)),
        ("ikonos_x4", 102, (20, 16)),
        ("yokoya_x4", 31, (12, 12)),
        ("lso_x4", 31, (28, 28)),
    ],
)
def test_any_protocol_bands_and_size(name, protocol, bands, size):
    chosen, nm = PROTOCOLS[protocol], NM["cave" if bands == 31 else "vnir"]
    pair = simulate(smooth_cube(bands, *size), nm, chosen)
    fused = CLASSICAL[name].fuse(*arrays(pair), chosen, nm)
    assert fused.shape == (bands, *size)
    assert fused.dtype == np.float32
    assert fused.min() >= 0
    assert fused.max() <= 1
    assert np.array_equal(fused, CLASSICAL[name].fuse(*arrays(pair), chosen, nm))


@pytest.mark.parametrize("name", CLASSICAL)
def test_measured_msi_and_dark_images(name):
    protocol = PROTOCOLS["paris_x4"]
    cube = smooth_cube(198, 16, 16)
    matrix = torch.rand(9, 198, dtype=torch.float64) / 198
    msi = torch.einsum("ms,bshw->bmhw", matrix, cube)
    for scale in (1.0, 0.0):
        pair = simulate(scale * cube, None, protocol, msi_BMHW=scale * msi)
        fused = CLASSICAL[name].fuse(*arrays(pair), protocol)
        assert fused.shape == (198, 16, 16)
        assert np.isfinite(fused).all()
        assert scale or fused.max() < 1e-6


@pytest.mark.parametrize("name", FUSING)
def test_better_than_bicubic_on_the_sample(name, sample):
    protocol = PROTOCOLS["cave_x4"]
    for scene, pair in sample:
        scores = {}
        for method in ("bicubic", name):
            fused = CLASSICAL[method].fuse(*arrays(pair), protocol, scene.wavelengths_nm)
            scores[method] = evaluate(torch.from_numpy(fused), pair.reference_BSHW[0], 4)
        assert scores[name]["psnr"] > scores["bicubic"]["psnr"] + 6, scene.name
        assert scores[name]["ergas"] < scores["bicubic"]["ergas"] / 2, scene.name
        assert scores[name]["sam"] < scores["bicubic"]["sam"], scene.name


@pytest.mark.parametrize("name", CLASSICAL)
def test_result_that_is_projected_meets_the_msi_and_comes_closer(name, sample):
    protocol = PROTOCOLS["cave_x4"]
    scene, pair = sample[0]
    errors = []
    for what in ("none", "msi", "both"):
        method = replace(CLASSICAL[name], consistency=what)
        fused_SHW = method.fuse(*arrays(pair), protocol, scene.wavelengths_nm)
        errors.append(np.square(fused_SHW - pair.reference_BSHW[0].numpy()).mean())
        response_MS = protocol.response(31, scene.wavelengths_nm)
        rest_MHW = np.tensordot(response_MS, fused_SHW, 1) - arrays(pair)[1]
        # Clipping moves single pixels off the projection.
        assert what == "none" or np.median(np.abs(rest_MHW)) < 1e-6
    # What regresses on the MSI meets it already.
    most = errors[0] / 4 if name == "bicubic" else errors[0] * (1 + 1e-6)
    assert max(errors[1:]) < most


def test_lr_pixels_of_images_with_gaps_are_not_projected_on(sample):
    scene, pair = sample[0]
    valid_HW = np.ones(scene.raw_SHW.shape[1:], bool)
    valid_HW[:8, :8] = False
    masks = (valid_HW[2::4, 2::4], valid_HW)
    method = replace(CLASSICAL["gsa"], consistency="msi")
    fused_SHW = method.fuse(*arrays(pair), PROTOCOLS["cave_x4"], scene.wavelengths_nm, *masks)
    assert np.array_equal(np.isfinite(fused_SHW[0]), valid_HW)
    with pytest.raises(UserError, match=r"model\.consistency: found 'both', expected none or msi"):
        replace(method, consistency="both").fuse(
            *arrays(pair), PROTOCOLS["cave_x4"], scene.wavelengths_nm, *masks
        )


@pytest.mark.skipif(not CROPS.is_dir(), reason="the CAVE crops are not part of the repository")
@pytest.mark.parametrize("name", FUSING)
def test_better_than_bicubic_on_a_cave_crop(name):
    chosen, scene = PROTOCOLS["cave_x4"], read_scene(CROPS / "fake_and_real_sushi_ms.h5")
    pair = simulated(scene, chosen)
    fused = CLASSICAL[name].fuse(*arrays(pair), chosen, scene.wavelengths_nm)
    lms = CLASSICAL["bicubic"].fuse(*arrays(pair), chosen)
    ours, before = (
        evaluate(torch.from_numpy(x), pair.reference_BSHW[0], chosen.ratio) for x in (fused, lms)
    )
    assert ours["psnr"] > before["psnr"] + 8
    assert ours["sam"] < before["sam"]


def test_bicubic_is_what_networks_start_from(sample):
    _, pair = sample[0]
    lms = CLASSICAL["bicubic"].fuse(*arrays(pair), PROTOCOLS["cave_x4"])
    assert np.abs(lms - pair.lms_BSHW[0].numpy()).max() < 1e-6


@pytest.mark.parametrize("name", ["gsa", "sfim_hs", "subspace"])
def test_bands_that_are_mixtures_of_the_msi_are_found_exactly(name):
    # Three materials and three MSI bands: the regression holds at every pixel.
    protocol = PROTOCOLS["cave_x4"]
    cube = smooth_cube(31, 32, 32)
    pair = simulate(cube, NM["cave"], protocol)
    fused = CLASSICAL[name].fuse(*arrays(pair), protocol, NM["cave"])
    assert np.abs(fused - cube[0].numpy()).max() < 1e-4


@pytest.mark.parametrize("protocol", ["cave_x4", "cave_x8", "dhif_x8", "lso_x4", "yokoya_x4"])
def test_interpolation_knows_where_lr_pixels_lie(protocol):
    chosen = PROTOCOLS[protocol]
    rows, cols = torch.arange(64.0).double(), torch.arange(96.0).double()
    ramp = (rows[:, None] + 2 * cols)[None, None].expand(1, 31, -1, -1) / 300
    pair = simulate(ramp, NM["cave"], chosen)
    found = problem(pair, chosen).interpolate(pair.lr_hsi_BShw[0].numpy())
    inner = (slice(None), slice(24, -24), slice(24, -24))
    assert np.abs(found[inner] - ramp[0].numpy()[inner]).max() < 1e-9


def problem(pair: Pair, protocol: Protocol) -> Problem:
    return Problem(*arrays(pair), protocol, NM["cave"])


def test_measured_response_is_found_from_the_images(sample):
    _, pair = sample[0]
    protocol = PROTOCOLS["cave_x4"]
    known = problem(pair, protocol).response
    measured = replace(protocol, srf="measured")
    found = Problem(*arrays(pair), measured).response
    assert (found >= 0).all()
    spectra = pair.lr_hsi_BShw[0].double().flatten(1).numpy()
    assert np.abs((found - known) @ spectra).max() < 1e-3


def test_subspace_is_the_minimum_it_states(monkeypatch):
    protocol = PROTOCOLS["cave_x4"]
    pair = simulate(smooth_cube(31, 16, 16) ** 2, NM["cave"], protocol)
    given = problem(pair, protocol)
    monkeypatch.setattr(subspace, "TOLERANCE", 1e-12)
    monkeypatch.setattr(subspace, "ITERATIONS", 5000)
    fused = subspace.solve(given)
    gains, constants = given.prediction
    prior = np.tensordot(gains, given.msi_MHW, 1) + constants[:, None, None]
    basis = np.linalg.svd(given.lr_hsi_Shw.reshape(31, -1), full_matrices=False)[0]
    basis = basis[:, : subspace.DIMENSIONS]

    def cost(x_SHW: np.ndarray) -> float:
        total = np.square(given.degrade(x_SHW) - given.lr_hsi_Shw).sum()
        total += np.square(np.tensordot(given.response, x_SHW, 1) - given.msi_MHW).sum()
        rest_KHW = np.tensordot(basis.T, x_SHW - prior, 1)
        for axis in (1, 2):
            step = np.square(np.diff(given.msi_MHW, axis=axis)).mean(axis=0)
            weight = 1 / (1 + step / (subspace.EDGE * np.square(given.msi_MHW).mean()))
            rough = (weight * np.square(np.diff(rest_KHW, axis=axis))).sum()
            total += subspace.SMOOTHNESS * rough
        return float(total)

    least = cost(fused)
    rng = np.random.default_rng(0)
    for _ in range(5):
        change = 1e-3 * np.tensordot(basis, rng.standard_normal((basis.shape[1], 16, 16)), 1)
        # Symmetric about a minimum: going either way costs the same, and more.
        either = [cost(fused + sign * change) for sign in (1, -1)]
        assert min(either) > least
        assert either[0] - least == pytest.approx(either[1] - least, rel=1e-4)


def test_updates_never_increase_the_error():
    rng = np.random.default_rng(0)
    data, ends, amounts = rng.random((9, 50)), rng.random((9, 4)), rng.random((4, 50))
    before = np.square(data - ends @ amounts).sum()
    for _ in range(3):
        ends, amounts = cnmf.factorise(data, ends, amounts)
        error = np.square(data - ends @ amounts).sum()
        assert error <= before
        before = error


def test_abundances_of_pixels_do_not_depend_on_how_they_are_cut(monkeypatch):
    rng = np.random.default_rng(0)
    data, ends, start = rng.random((9, 50)), rng.random((9, 4)), rng.random((4, 50))
    whole = cnmf.fit(data, ends, start)
    assert np.square(data - ends @ whole).sum() < np.square(data - ends @ start).sum()
    monkeypatch.setattr(cnmf, "PIECE_PX", 7)
    np.testing.assert_allclose(cnmf.fit(data, ends, start), whole, rtol=1e-12)
    # The ends that fit given abundances are the abundances of the transposed problem.
    fixed = cnmf.fit(data.T, start.T, ends.T).T
    assert np.square(data - fixed @ start).sum() < np.square(data - ends @ start).sum()


def test_vertex_components_are_the_pure_pixels():
    rng = np.random.default_rng(0)
    spectra, amounts = rng.random((20, 4)), rng.dirichlet(np.ones(4), 300).T
    pure = [7, 90, 150, 299]
    amounts[:, pure] = np.eye(4)
    # Shading does not move a pixel to the edge.
    data = spectra @ amounts * rng.uniform(0.2, 1, 300)
    found = cnmf.endmembers(data, 4, np.random.default_rng(0))
    expected = {tuple(data[:, i].round(9)) for i in pure}
    assert {tuple(x.round(9)) for x in found.T} == expected


def test_images_that_do_not_fit_are_named(sample):
    _, pair = sample[0]
    lr, msi = arrays(pair)
    gsa, protocol = CLASSICAL["gsa"], PROTOCOLS["cave_x4"]
    with pytest.raises(UserError, match="MSI: found HR size 128x128 with LR size 31x32"):
        gsa.fuse(lr[:, 1:], msi, protocol)
    with pytest.raises(UserError, match=r"LR-HSI: found shape .* not finite"):
        gsa.fuse(lr * np.nan, msi, protocol)
    with pytest.raises(UserError, match="the scene has no wavelengths"):
        CLASSICAL["cnmf"].fuse(lr, msi, protocol)
    with pytest.raises(UserError, match="MSI: found 2 bands, expected 3"):
        gsa.fuse(lr, msi[:2], protocol)
