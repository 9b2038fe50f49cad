"""Protocols and spectral responses, checked against direct computations; and what goes wrong."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from places import SHARED_DATA
from pydantic import TypeAdapter, ValidationError
from scipy import io, ndimage
from torch.nn import functional as F

from feinfn.errors import UserError
from feinfn.protocols.filters import MATMUL_SIDE, filter_bands, gaussian_taps
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.protocol import Protocol, reach_px
from feinfn.protocols.response import ResponseTable, read_srf
from feinfn.protocols.simulate import axis_matrix, simulate, spatial

CAVE, HARVARD = PROTOCOLS["cave_x4"], PROTOCOLS["harvard_x4"]
BANDS_NM = np.arange(400, 701, 10.0)
SHARED = SHARED_DATA
on_this_machine = pytest.mark.skipif(not SHARED.is_dir(), reason="the real data are not here")


def scene_for(protocol: Protocol) -> tuple[int, np.ndarray | None]:
    """Return bands and wavelengths of a scene that fits."""
    if protocol.srf == "measured":
        return 5, None
    table = read_srf(protocol.srf)
    if protocol.srf_by == "index":
        return (len(table.grid_nm) if table.grid_nm is not None else table.values_MN.shape[1]), None
    return 31, np.linspace(table.grid_nm[0], table.grid_nm[-1], 31)


def pair_of(protocol: Protocol, side: int, **changed: object):
    bands, nm = scene_for(protocol)
    cube = torch.rand(2, bands, side, side, dtype=torch.float64)
    msi = torch.rand(2, len(protocol.msi_order), side, side, dtype=torch.float64)
    return simulate(cube, nm, replace(protocol, **changed), msi_BMHW=msi)


def test_lr_hsi_is_blur_and_every_fourth_pixel():
    cube = torch.rand(1, 31, 32, 48, dtype=torch.float64)
    pair = simulate(cube, BANDS_NM, CAVE)
    # truncate gives radius 1; scipy's "mirror" is torch's "reflect".
    blurred = ndimage.gaussian_filter(cube[0].numpy(), (0, 0.5, 0.5), mode="mirror", truncate=2.0)
    np.testing.assert_allclose(pair.lr_hsi_BShw[0], blurred[:, 2::4, 2::4], atol=1e-12)
    assert pair.lms_BSHW.shape == cube.shape
    assert pair.lms_BSHW.min() >= 0
    assert pair.lms_BSHW.max() <= 1


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_simulates_a_scene(name):
    protocol = PROTOCOLS[name]
    side = 2 * max(protocol.ratio, protocol.psf_px)
    side += -side % protocol.ratio
    pair = pair_of(protocol, side)
    low = side // protocol.ratio
    assert pair.lr_hsi_BShw.shape[-2:] == (low, low)
    assert pair.msi_BMHW.shape[1:] == (len(protocol.msi_order), side, side)
    assert pair.lms_BSHW.shape == pair.reference_BSHW.shape
    assert all(x.min() >= 0 and x.max() <= 1 + 1e-12 for x in pair.inputs())
    assert name == protocol.name
    assert all((protocol.about, protocol.known, protocol.inferred, protocol.source))
    again = replace(protocol, name="x", about="", known="", inferred="", source="")
    assert again.hash() == protocol.hash()


@pytest.mark.parametrize("border", ["zero", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("name", PROTOCOLS)
def test_degrading_is_a_matrix_for_each_axis(name, border):
    protocol = replace(PROTOCOLS[name], psf_border=border)
    x = torch.rand(1, 2, 2 * protocol.ratio, 3 * protocol.ratio, dtype=torch.float64)
    rows, cols = (axis_matrix(n, protocol) for n in x.shape[-2:])
    torch.testing.assert_close(rows @ x @ cols.T, spatial(protocol)(x))


def test_axis_shorter_than_a_mirrored_psf_is_refused():
    protocol = replace(CAVE, psf_px=9, psf_border="reflect")
    with pytest.raises(UserError, match="PSF of 9x9 on an image of 4x4"):
        axis_matrix(4, protocol)


def test_dhif_averages_the_cell_of_each_lr_pixel():
    cube = torch.rand(1, 31, 32, 32, dtype=torch.float64)
    taps = np.exp(-((np.arange(8) - 3.5) ** 2) / 8)
    psf = np.outer(taps, taps) / taps.sum() ** 2
    cells = cube[0].numpy().reshape(31, 4, 8, 4, 8)
    expected = np.einsum("saibj,ij->sab", cells, psf)
    found = simulate(cube, BANDS_NM, PROTOCOLS["dhif_x8"]).lr_hsi_BShw[0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_box_and_delta_and_nearest():
    box = {"psf": "box", "psf_sigma_px": None, "psf_px": 4, "phase_px": 1}
    pair = pair_of(CAVE, 16, **box, upsampling="nearest")
    torch.testing.assert_close(pair.lr_hsi_BShw, F.avg_pool2d(pair.reference_BSHW, 4))
    assert torch.equal(pair.lms_BSHW[..., ::4, 3::4], pair.lr_hsi_BShw)
    pair = pair_of(CAVE, 16, psf="delta", psf_sigma_px=None, psf_px=1)
    assert torch.equal(pair.lr_hsi_BShw, pair.reference_BSHW[..., 2::4, 2::4])


def test_msi_is_blue_green_red_and_rows_sum_to_one():
    response = CAVE.response(31, BANDS_NM)
    np.testing.assert_allclose(response.sum(axis=1), np.ones(3))
    peaks = BANDS_NM[response.argmax(axis=1)]
    assert peaks[0] < peaks[1] < peaks[2]
    flat = simulate(torch.full((1, 31, 8, 8), 0.25), BANDS_NM, CAVE)
    assert torch.allclose(flat.msi_BMHW, torch.tensor(0.25))


def test_harvard_gets_the_table_band_by_band_in_order_red_green_blue():
    by_index = HARVARD.response(31, np.arange(420, 721, 10.0))
    np.testing.assert_allclose(by_index, CAVE.response(31, BANDS_NM)[::-1])
    with pytest.raises(UserError, match="covers 400 to 700 nm"):
        replace(HARVARD, srf_by="wavelength").response(31, np.arange(420, 721, 10.0))


def test_any_wavelength_grid_is_interpolated():
    table = ResponseTable("t", ("a",), np.array([[0.0, 1.0, 0.0]]), np.array([400.0, 500, 600]))
    wavelengths = np.array([425.0, 510, 590])
    found = table.matrix(("a",), 3, wavelengths)[0]
    np.testing.assert_allclose(found, np.array([0.25, 0.9, 0.1]) / 1.25)
    stored = replace(table, normalised=False, zero_outside=True)
    outside = stored.matrix(("a",), 4, np.array([350.0, 500, 600, 2500]))[0]
    np.testing.assert_allclose(outside, [0, 1, 0, 0])


@pytest.mark.parametrize(("bands", "low", "high"), [(102, 430, 860), (198, 380, 2500)])
def test_ikonos_sees_pavia_and_jasper_ridge(bands, low, high):
    nm = np.linspace(low, high, bands)
    response = PROTOCOLS["ikonos_x4"].response(bands, nm)
    centres = response @ nm
    np.testing.assert_allclose(centres, [480, 550, 665, 805], atol=25)
    assert (response[:, nm > 1035] == 0).all()


@on_this_machine
def test_embedded_responses_are_the_published_ones():
    srf = SHARED / "srf"
    for name, file, key in [
        ("rosis_4x103", "pavia_R_4x103", "R"),
        ("hyperion_to_ali", "R_hyperion_to_ali_9x128", "R"),
        ("aviris_to_sentinel2", "R_aviris_to_sentinel2_10x173", "R"),
        ("ikonos", "ikonos_spec_resp", "ikonos_sp"),
    ]:
        table, original = read_srf(name), io.loadmat(srf / f"{file}.mat")[key]
        if table.grid_nm is not None:
            np.testing.assert_allclose(table.grid_nm, original[:, 0])
            original = original[:, 1:].T
        np.testing.assert_allclose(table.values_MN, original, rtol=1e-6, atol=1e-7)
    landsat = np.loadtxt(srf / "landsat_6x200_for_indian_pines.csv", delimiter=",")
    np.testing.assert_allclose(read_srf("landsat_indian_pines").values_MN, landsat)
    for name in ("nikon_d700_akhtar_norm", "nikon_d700_nssr_norm"):
        original = read_srf(str(srf / f"{name}.csv"))
        assert replace(original, source=name).sha256() == read_srf(name).sha256()


@on_this_machine
def test_real_scenes_fit_their_protocols():
    jasper = io.loadmat(SHARED / "remote_sensing" / "Jasper.mat")["Y"]
    cube = torch.tensor(jasper.reshape(198, 100, 100) / jasper.max())[None]
    pair = simulate(cube, np.linspace(380, 2500, 198), PROTOCOLS["ikonos_x4"])
    assert pair.msi_BMHW.shape == (1, 4, 100, 100)
    paris = io.loadmat(SHARED / "remote_sensing" / "Paris_Hyperion_ALI_hs_ms.mat")
    cube, msi = (torch.tensor(paris[k]).permute(2, 0, 1)[None] / 2 for k in ("HSim", "MSim"))
    pair = simulate(cube, None, PROTOCOLS["paris_x4"], msi_BMHW=msi)
    assert torch.equal(pair.msi_BMHW, msi)
    assert pair.lr_hsi_BShw.shape == (1, 128, 18, 18)
    # Rows of the matrix and bands of the measured MSI stand in the same order.
    table = read_srf("hyperion_to_ali")
    seen = (
        table.matrix(PROTOCOLS["paris_x4"].msi_order, 128, None, "index")
        @ cube[0].flatten(1).numpy()
    )
    match = np.corrcoef(seen, msi[0].flatten(1))[:9, 9:]
    assert (match.diagonal() > 0.8).all()


def test_noise_and_bits():
    clean = pair_of(CAVE, 32)
    cube = clean.reference_BSHW
    noisy = replace(CAVE, hsi_snr_db=20.0, msi_snr_db=30.0)
    pair = simulate(cube, BANDS_NM, noisy, noise_seed=3)
    for x, y, snr in (
        (pair.lr_hsi_BShw, simulate(cube, BANDS_NM, CAVE).lr_hsi_BShw, 20),
        (pair.msi_BMHW, simulate(cube, BANDS_NM, CAVE).msi_BMHW, 30),
    ):
        found = 10 * torch.log10(y.square().mean() / (x - y).square().mean())
        assert found.item() == pytest.approx(snr, abs=0.2)
    second = simulate(cube[1:], BANDS_NM, noisy, noise_seed=[4])
    torch.testing.assert_close(second.msi_BMHW, pair.msi_BMHW[1:])
    torch.testing.assert_close(second.lms_BSHW, pair.lms_BSHW[1:])
    stored = simulate(cube, BANDS_NM, replace(noisy, lr_bits=8, msi_bits=4), noise_seed=3)
    for x, top in ((stored.lr_hsi_BShw, 255), (stored.msi_BMHW, 15)):
        torch.testing.assert_close(x * top, (x * top).round())
    assert (stored.msi_BMHW - pair.msi_BMHW.clamp(0, 1)).abs().max() <= 0.5 / 15 + 1e-9


@pytest.mark.parametrize("upsampling", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("name", ["cave_x4", "cave_x8", "dhif_x4", "cnnfus_x8", "lso_x4"])
def test_reach_is_what_a_window_depends_on(name, upsampling):
    protocol = replace(PROTOCOLS[name], srf_by="index", upsampling=upsampling)
    ratio = protocol.ratio
    low, high, side = 10 * ratio, 12 * ratio, 22 * ratio
    cube = torch.rand(1, 31, side, side, dtype=torch.float64, requires_grad=True)
    pair = simulate(cube, None, protocol)
    lms = pair.lms_BSHW[0, 0, low:high, low:high]
    lr = pair.lr_hsi_BShw[0, 0, 10:12, 10:12]
    # Random weights, so that nothing cancels.
    (grad,) = torch.autograd.grad((lms * torch.rand_like(lms)).sum() + lr.sum(), cube)
    rows = torch.nonzero(grad[0, 0].abs().sum(1)).flatten()
    exact = max(low - int(rows.min()), int(rows.max()) - high + 1, 0)
    assert reach_px(protocol) == -(-exact // ratio) * ratio
    reach = reach_px(protocol)
    for offset, changes in [(reach, False), (exact - 1, True)][: 1 + (exact > 0)]:
        moved = cube.detach().clone()
        # Both sides: the further one decides the reach.
        moved[..., low - 1 - offset, :] += 0.1
        moved[..., high + offset, :] += 0.1
        window = simulate(moved, None, protocol).lms_BSHW[0, 0, low:high, low:high]
        assert (window - lms).abs().max().gt(1e-12).item() == changes


def test_window_with_its_reach_is_cut_from_the_whole():
    protocol, side = PROTOCOLS["lso_x4"], 96
    whole = pair_of(protocol, side)
    reach = reach_px(protocol)
    top, left, size = 40, 0, 16
    _, nm = scene_for(protocol)
    cut = whole.reference_BSHW[..., top - reach : top + size + reach, : left + size + reach]
    part = simulate(cut, nm, protocol)
    window = part.lms_BSHW[..., reach : reach + size, :size]
    torch.testing.assert_close(window, whole.lms_BSHW[..., top : top + size, :size])


def test_definition_follows_numbers_and_not_texts(tmp_path):
    changes = [
        {"ratio": 8},
        {"psf": "box", "psf_sigma_px": None},
        {"psf_px": 5},
        {"psf_sigma_px": 0.6},
        {"psf_border": "zero"},
        {"phase_px": 1},
        {"srf": "nikon_d700_nssr_norm"},
        {"srf": "measured"},
        {"srf_by": "index"},
        {"msi_order": ("R", "G", "B")},
        {"upsampling": "bilinear"},
        {"hsi_snr_db": 30.0},
        {"msi_snr_db": 30.0},
        {"lr_bits": 8},
        {"msi_bits": 8},
    ]
    hashes = {replace(CAVE, **change).hash() for change in changes} | {CAVE.hash()}
    assert len(hashes) == len(changes) + 1
    assert replace(CAVE, hsi_snr_db=30).hash() == replace(CAVE, hsi_snr_db=30.0).hash()
    assert json.loads(json.dumps(CAVE.definition()))["srf"].startswith("sha256:")
    table = read_srf(CAVE.srf)
    rows = zip(table.grid_nm, table.values_MN.T, strict=True)
    lines = [f"{w:g},{','.join(map(str, v))}" for w, v in rows]
    mine = tmp_path / "mine.csv"
    mine.write_bytes("\r\n".join(["# note: my copy", "wavelength_nm,R,G,B", *lines]).encode())
    assert replace(CAVE, srf=str(mine)).hash() == CAVE.hash()
    lines[3] = lines[3].replace("0.0", "0.1", 1)
    other = tmp_path / "other.csv"
    other.write_text("\n".join(["wavelength_nm,R,G,B", *lines]))
    assert replace(CAVE, srf=str(other)).hash() != CAVE.hash()


def test_study_can_hold_a_protocol():
    adapter = TypeAdapter(Protocol)
    fields = json.loads(adapter.dump_json(CAVE))
    assert adapter.validate_json(json.dumps(fields)) == CAVE
    with pytest.raises(ValidationError, match="psf_size"):
        adapter.validate_json(json.dumps({**fields, "psf_size": 3}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratio": 0}, "protocol.ratio: found 0"),
        ({"psf": "moffat"}, "protocol.psf: found 'moffat', expected one of gaussian, box, delta"),
        ({"psf_px": 0}, "protocol.psf_px: found 0"),
        ({"psf": "delta", "psf_sigma_px": None}, "protocol.psf_px: found 3, expected 1 for psf"),
        ({"psf_sigma_px": -0.5}, "protocol.psf_sigma_px: found -0.5"),
        ({"psf_sigma_px": None}, "protocol.psf_sigma_px: found None"),
        ({"psf": "box"}, "protocol.psf_sigma_px: found 0.5, expected null"),
        ({"psf_border": "mirror"}, "protocol.psf_border: found 'mirror'"),
        ({"phase_px": 4}, "protocol.phase_px: found 4, expected from 0 to 3"),
        ({"srf_by": "band"}, "protocol.srf_by: found 'band'"),
        ({"msi_order": ()}, r"protocol.msi_order: found \(\)"),
        ({"msi_order": ("R", "R")}, "protocol.msi_order: .* all different"),
        ({"upsampling": "lanczos"}, "protocol.upsampling: found 'lanczos'"),
        ({"hsi_snr_db": float("nan")}, "protocol.hsi_snr_db: found nan, expected a finite number"),
        ({"msi_snr_db": float("inf")}, "protocol.msi_snr_db: found inf"),
        ({"lr_bits": 0}, "protocol.lr_bits: found 0"),
        ({"msi_bits": 17}, "protocol.msi_bits: found 17"),
    ],
)
def test_bad_fields_are_named(change, message):
    with pytest.raises(UserError, match=message):
        replace(CAVE, **change)


CUBE = torch.rand(1, 31, 8, 8)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (
            lambda: simulate(torch.rand(1, 31, 30, 32), BANDS_NM, CAVE),
            r"HR size 30x32 .* expected HR = 4 x LR; crop .* 28x32",
        ),
        (lambda: CAVE.response(31, BANDS_NM + 20), "span 420 to 720 nm.* covers 400 to 700 nm"),
        (lambda: CAVE.response(31, None), "scene has no wavelengths"),
        (lambda: CAVE.response(5, np.linspace(530, 540, 5)), "band B sees nothing"),
        (
            lambda: simulate(torch.rand(1, 31, 8, 8), None, PROTOCOLS["indian_pines_x4"]),
            "found a scene of 31 bands, expected 200",
        ),
        (
            lambda: replace(PROTOCOLS["indian_pines_x4"], srf_by="wavelength").response(200, None),
            "srf_by: found 'wavelength', expected 'index'",
        ),
        (lambda: replace(CAVE, msi_order=("NIR",)).response(31, BANDS_NM), "expected bands of"),
        (lambda: replace(CAVE, srf="d800").hash(), "srf: found 'd800', expected .*ikonos"),
        (lambda: replace(CAVE, srf="no/such.csv").hash(), "srf: found 'no/such.csv'"),
        (lambda: simulate(CUBE, BANDS_NM, PROTOCOLS["paris_x4"]), "found none as measured MSI"),
        (
            lambda: simulate(CUBE, None, PROTOCOLS["paris_x4"], msi_BMHW=torch.rand(1, 9, 4, 4)),
            r"found shape \[1, 9, 4, 4\] as measured MSI, expected shape \[1, 9, 8, 8\]",
        ),
        (lambda: PROTOCOLS["paris_x4"].response(31, None), "the MSI is measured"),
        (
            lambda: simulate(CUBE, BANDS_NM, PROTOCOLS["lso_x8"]),
            "PSF of 25x25 on an image of 8x8, expected an image of at least 13x13",
        ),
        (
            lambda: simulate(CUBE, BANDS_NM, replace(CAVE, hsi_snr_db=9.0), noise_seed=[1, 2]),
            "seed: found 2, expected 1 seeds",
        ),
    ],
)
def test_what_does_not_fit_is_named(run, message):
    with pytest.raises(UserError, match=message):
        run()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("wavelength_nm,R\n400,1\n410,x\n", "line 3: found '410,x', expected 2 finite numbers"),
        ("wavelength_nm,R\n400,1\n\n410\n", "line 4: found '410'"),
        ("wavelength_nm,R\n400,1\n410,nan\n", "line 3"),
        ("wavelength_nm,R\n410,1\n400,1\n", "ascending"),
        ("wavelength_nm,R,G\n400,1\n", "found 1 responses and the band names R, G"),
        ("wavelength_nm,R,R\n400,1,1\n", "all different"),
        ("wavelength_nm,R\n", "found no numbers"),
        ("wavelength_nm;R\n400;1\n", "expected a first row 'wavelength_nm,<band>"),
        ("1,2\n3,4\n", "or a line '# bands: <band>"),
        ("# bands: R\n1,2\n3,4\n", "found 2 responses and the band names R,"),
        ("# row: normalised\nwavelength_nm,R\n400,1\n", "line 1: found '# row: normalised'"),
        ("# outside: one\nwavelength_nm,R\n400,1\n", "line 1: found '# outside: one'"),
        ("", "expected a first row"),
    ],
)
def test_broken_tables_are_named(text, message, tmp_path):
    path = tmp_path / "broken.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_srf(str(path))
    assert "broken.csv" in str(caught.value)


def test_binary_table_is_named(tmp_path):
    path = tmp_path / "excel.csv"
    path.write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(UserError, match="expected a CSV file in UTF-8"):
        read_srf(str(path))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("padding", [0, 5])
def test_both_ways_of_filtering_agree(padding, dtype, monkeypatch):
    x, taps = torch.rand(2, 3, 40, 24, dtype=dtype), gaussian_taps(11, 1.5)
    assert max(x.shape[-2:]) <= MATMUL_SIDE
    product = filter_bands(x, taps, padding)
    monkeypatch.setattr("feinfn.protocols.filters.MATMUL_SIDE", 0)
    monkeypatch.setattr("feinfn.protocols.filters.MATMUL_SIDE_FLOAT64", 0)
    torch.testing.assert_close(product, filter_bands(x, taps, padding))
