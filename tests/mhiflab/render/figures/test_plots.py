"""Figures: equal bytes whenever drawn, readable whatever the user's settings are."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from feinfn.analysis.change import change_bin, change_pixel, effect_of, reach
from feinfn.analysis.gabor import closed_spreads, gabor, spectrum
from feinfn.analysis.latent import latent_spectra
from feinfn.analysis.radial import band_centres
from feinfn.analysis.response import frequency_response
from feinfn.analysis.spectra import distinct_pixels, spectra_at
from feinfn.config import DataConfig, ModelConfig
from feinfn.data.images import pseudo_rgb
from feinfn.data.pairs import scene_pair
from feinfn.data.source import load_scene
from feinfn.errors import UserError
from feinfn.methods.feinfn.model import FeINFN
from feinfn.protocols.named import PROTOCOLS
from feinfn.protocols.simulate import Pair
from mhiflab.render.figures.images.errors import errors_figure
from mhiflab.render.figures.images.fused import Fused, Zoom, fused_figure
from mhiflab.render.figures.images.spectra import spectra_figure
from mhiflab.render.figures.network.change import change_figure
from mhiflab.render.figures.network.gabor import Wavelet, gabor_figure
from mhiflab.render.figures.network.latent import latent_figure
from mhiflab.render.figures.network.response import response_figure
from mhiflab.render.figures.style import add_footer, error_limit, figure_bytes, line_style
from mhiflab.render.figures.training.cost import cost_figure
from mhiflab.render.figures.training.curves import curves_figure

SMALL = ModelConfig(feat_dim=6, guide_dim=6, mlp_widths=(8,), decoder_width=8, spectral_blocks=1)
ACTIVATIONS = ("gabor", "relu", "gelu", "leaky_relu", "sine", "gaussian")


@cache
def pair() -> Pair:
    scene = load_scene(DataConfig(), "superballs_ms")
    return scene_pair(scene, PROTOCOLS["cave_x4"], SMALL, torch.device("cpu"))


def network(**fields: object) -> FeINFN:
    torch.manual_seed(0)
    return FeINFN(replace(SMALL, **fields)).eval()


def images(count: int) -> dict[str, np.ndarray]:
    """Return noisy copies of one reference, some better than others."""
    cube = pair().reference_BSHW[0].numpy()
    rng = np.random.default_rng(0)
    names = ("Bicubic upsampling", "FeINFN without Fourier branch", "FeINFN", "PSRT")[:count]
    noise = (0.04, 0.015, 0.01, 0.02)
    return {
        name: cube + noise[i] * rng.normal(size=cube.shape) * (0.2 + cube)
        for i, name in enumerate(names)
    }


def draw_fused() -> Figure:
    cube = pair().reference_BSHW[0].numpy()
    methods = {"Reference": Fused(pseudo_rgb(cube, None))}
    for name, image in images(4).items():
        error = abs(image - cube).mean(axis=0).astype(np.float16)
        methods[name] = Fused(pseudo_rgb(image, None), error, "PSNR 41.23 dB\nSAM 3.21°")
    return fused_figure(methods, Zoom(30, 40, 24))


def draw_spectra() -> Figure:
    cube = pair().reference_BSHW[0].numpy()
    pixels = distinct_pixels(cube, 3)
    methods = {name: spectra_at(image, pixels) for name, image in images(4).items()}
    nm = np.linspace(400, 700, 31)
    return spectra_figure(spectra_at(cube, pixels), methods, pixels, nm, pseudo_rgb(cube, nm))


def draw_curves() -> Figure:
    rng, steps = np.random.default_rng(0), np.arange(0, 5001, 250)
    rows = []
    for place, method in enumerate(("With Fourier branch", "Without Fourier branch")):
        for seed in range(3):
            psnr = 44 - place - 12 * np.exp(-steps / 900) + 0.3 * rng.normal(size=len(steps))
            cells = {"method": method, "seed": seed, "step": steps, "value": psnr}
            rows.append(pd.DataFrame(cells))
    return curves_figure(pd.concat(rows))


def draw_cost() -> Figure:
    rows = [
        ("PSRT", 247_455, 50.47, 2.22, False),
        ("BDT", 2_668_027, 52.30, 4.16, False),
        ("DSPNet", 6_056_155, 51.18, 13.62, False),
        ("DHIF", 22_461_913, 51.07, 108.5, False),
        ("3DT-Net", 3_463_536, 51.38, np.nan, False),
        ("MIMO-SST", 4_983_042, 50.98, 3.16, False),
        ("Fusformer", 504_463, 44.52, np.nan, False),
        ("FeINFN", 3_164_816, 52.0, 23.92, True),
    ]
    columns = ["method", "parameters", "psnr", "cost", "measured"]
    return cost_figure(pd.DataFrame(rows, columns=columns), "GFLOP at 64 px")


def draw_latent() -> Figure:
    found = latent_spectra(network(), pair(), offset_px=2, bands=6)
    return latent_figure(found.panels(), band_centres(6), vars(found.similarity))


def draw_gabor() -> Figure:
    omega, scale = 30.0, 10.0
    step = 0.002
    x_N = (np.arange(4096) - 2048) * step
    psi_N = gabor(x_N, omega, scale)
    at, density = spectrum(psi_N, step)
    spreads = closed_spreads(omega, scale)
    ratios = np.linspace(0, 6, 121)
    products = {
        label: np.array([closed_spreads(r, 1, kind).product for r in ratios])
        for label, kind in (
            ("real (used here)", "real"),
            ("complex", "complex"),
            ("positive frequencies", "one_sided"),
        )
    }
    wavelet = Wavelet(x_N, psi_N, at, density, spreads.time, spreads.frequency)
    return gabor_figure(wavelet, omega / scale, ratios, products)


@cache
def responses() -> dict[str, dict[str, np.ndarray]]:
    return {k: frequency_response(network(activation=k), pair(), bands=12) for k in ACTIVATIONS}


def draw_response() -> Figure:
    features = ("input", "filter_1", "filter_2", "filter_3")
    kept = {k: {name: curves[name] for name in features} for k, curves in responses().items()}
    return response_figure(band_centres(12), kept)


def draw_change() -> Figure:
    x = pair().reference_BSHW[0]
    model, inputs = network(), pair()
    changes = {
        "Image, one pixel": (change_pixel(x, 20, 30, 1.5) - x).abs().mean(dim=0).numpy(),
        "Image, one frequency": (change_bin(x, 3, 5, 1.5) - x).abs().mean(dim=0).numpy(),
        "LR code, one pixel": effect_of(
            model, inputs, "code", lambda y: change_pixel(y, 10, 10, 1.5)
        ),
        "LR code, one frequency": effect_of(
            model, inputs, "code", lambda y: change_bin(y, 3, 5, 1.5)
        ),
    }
    return change_figure(changes, {name: reach(c) for name, c in changes.items()})


def draw_errors() -> Figure:
    cube = pair().reference_BSHW[0].numpy()
    rng = np.random.default_rng(0)
    errors = {
        kind: (abs(rng.normal(size=cube.shape)) * cube).mean(axis=0) * (0.01 + 0.005 * i)
        for i, kind in enumerate(ACTIVATIONS)
    }
    return errors_figure(errors, {k: f"PSNR {44 - i} dB" for i, k in enumerate(ACTIVATIONS)})


FIGURES: dict[str, Callable[[], Figure]] = {
    name.removeprefix("draw_"): draw for name, draw in globals().items() if name.startswith("draw_")
}


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("suffix", ["png", "pdf"])
def test_figures_have_the_same_bytes_every_time(name, suffix, monkeypatch):
    first = figure_bytes(FIGURES[name](), suffix)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    with mpl.rc_context({"font.size": 20, "image.cmap": "jet", "savefig.dpi": 50}):
        second = figure_bytes(FIGURES[name](), suffix)
    assert first == second
    assert len(first) > 5000


@pytest.mark.parametrize("name", FIGURES)
def test_texts_are_large_enough_and_inside_the_figure(name):
    figure = FIGURES[name]()
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure_bytes(figure, "png")
    assert figure.get_figwidth() <= 6.9
    texts = [t for t in figure.findobj(mpl.text.Text) if t.get_text() and t.get_visible()]
    assert len(texts) > 5
    assert min(t.get_fontsize() for t in texts) >= 6
    box = figure.get_tightbbox(renderer)
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= figure.get_figwidth() + 0.01
    assert box.y1 <= figure.get_figheight() + 0.01


def test_names_of_crowded_bubbles_do_not_overlap():
    figure = draw_cost()
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [t.get_window_extent(renderer) for t in figure.axes[0].texts]
    assert len(boxes) == 8
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_bands_show_one_standard_deviation_of_common_steps():
    cells = {"method": "a", "seed": [0, 0, 1, 1, 1], "step": [0, 1, 0, 1, 2], "value": range(5)}
    axis = curves_figure(pd.DataFrame(cells)).axes[0]
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [[0, 1], [1, 2]])
    corners = axis.collections[0].get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx(2 + np.sqrt(2))


def test_bubbles_are_as_large_as_the_cost_says():
    sizes = {tuple(c.get_offsets()[0]): c.get_sizes()[0] for c in draw_cost().axes[0].collections}
    assert sizes[3.164816, 52.0] / sizes[6.056155, 51.18] == pytest.approx(23.92 / 13.62)


@pytest.mark.parametrize("parameters", [(0, 30_000), (33_738, 33_742), (4_000, 22e6)])
def test_any_numbers_of_parameters_have_a_place_and_readable_ticks(parameters):
    rows = [(f"method {n}", n, 40.0 + i, n / 1e6, True) for i, n in enumerate(parameters)]
    columns = ["method", "parameters", "psnr", "cost", "measured"]
    axis = cost_figure(pd.DataFrame(rows, columns=columns).astype({"cost": float})).axes[0]
    assert len(axis.texts) == 2
    assert len(axis.collections) == sum(n > 0 for n in parameters)
    ticks = [text.get_text() for text in axis.get_xticklabels()]
    assert 3 <= len(set(ticks)) == len(ticks) <= 8


def test_without_any_parameters_there_is_no_plane():
    rows = {"method": ["a"], "parameters": 0, "psnr": 40.0, "cost": np.nan, "measured": True}
    with pytest.raises(UserError, match="found no case with parameters"):
        cost_figure(pd.DataFrame(rows))


def test_small_bubbles_and_crosses_lie_over_large_bubbles():
    rows = [("cross", 1e6, 40.0, np.nan, False), ("small", 1e6, 40.0, 1.0, True)]
    rows.append(("large", 2e6, 40.0, 9.0, True))
    columns = ["method", "parameters", "psnr", "cost", "measured"]
    drawn = cost_figure(pd.DataFrame(rows, columns=columns)).axes[0].collections
    sizes = [one.get_sizes()[0] for one in drawn]
    assert sizes[0] == pytest.approx(9 * sizes[1])
    assert drawn[2].get_paths()[0].vertices.shape == (4, 2)
    assert drawn[0].get_zorder() <= drawn[1].get_zorder() <= drawn[2].get_zorder()


NAMES = ("_base", "$x$ and $\\foo$", "costs $5 or $6")


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(name):
    rgb, one = np.zeros((8, 8, 3), np.uint8), np.ones((1, 5))
    cells = {"method": name, "seed": [1, 1, 2, 2], "step": [1, 2, 1, 2], "value": [1.0, 2, 2, 3]}
    cost = {"method": [name], "parameters": 1e6, "psnr": 40.0, "cost": 1.0, "measured": True}
    figures = [
        curves_figure(pd.DataFrame(cells)),
        spectra_figure(one, {name: one}, [(0, 0)]),
        response_figure(np.arange(5) / 10, {name: {"input": one[0]}}),
        cost_figure(pd.DataFrame(cost)),
        fused_figure({name: Fused(rgb)}),
        errors_figure({name: np.eye(8)}),
        change_figure({name: np.eye(8)}),
    ]
    for figure in figures:
        figure_bytes(figure, "png")
        texts = [t for t in figure.findobj(mpl.text.Text) if t.get_visible()]
        (found,) = [t for t in texts if " ".join(t.get_text().split()) == name]
        assert not found.get_parse_math()


@pytest.mark.parametrize("count", [7, 20])
@pytest.mark.parametrize("height", [32, 64])
def test_many_pictures_fit_a_page(count, height):
    rgb, error = np.zeros((height, 32, 3), np.uint8), np.ones((height, 32), np.float16)
    note = "40.00 dB\n2.00°"
    methods = {f"A method of name {i}": Fused(rgb, error, note) for i in range(count)}
    maps = dict.fromkeys(methods, error)
    for figure in (
        errors_figure(maps, dict.fromkeys(maps, note)),
        fused_figure(methods, Zoom(0, 0, 8)),
    ):
        assert figure.get_figheight() <= 9
        assert figure.get_figwidth() <= 6.9
        renderer = FigureCanvasAgg(figure).get_renderer()
        figure.draw(renderer)
        texts = [t for a in figure.axes for t in (a.title, a.xaxis.label) if t.get_text()]
        boxes = [t.get_window_extent(renderer) for t in texts]
        assert len(boxes) >= 2 * count
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_more_pictures_than_fit_a_page_are_refused():
    maps = {f"Case {i}": np.ones((64, 32)) for i in range(60)}
    fused = {name: Fused(np.zeros((64, 32, 3), np.uint8), e) for name, e in maps.items()}
    for draw, given in ((errors_figure, maps), (fused_figure, fused)):
        with pytest.raises(UserError, match="found 60 pictures, expected fewer"):
            draw(given)


def test_errors_share_one_scale_and_black_pixels_do_not_count():
    a, b = np.full((4, 4), 1.0), np.full((4, 4), 3.0)
    a[0, 0] = np.nan
    axes = errors_figure({"a": a, "b": b}).axes
    assert {axis.images[0].get_clim() for axis in axes[:2]} == {(0.0, 3.0)}
    assert error_limit([np.zeros((2, 2))]) == 1


def test_more_lines_than_can_be_told_apart_are_refused():
    cells = [{"method": str(n), "seed": 0, "step": 0, "value": n} for n in range(50)]
    assert len(curves_figure(pd.DataFrame(cells[:49])).axes[0].lines) == 49
    assert len({tuple(line_style(place).values()) for place in range(49)}) == 49
    with pytest.raises(UserError, match="at most 49"):
        curves_figure(pd.DataFrame(cells))


def test_figures_without_what_they_can_do_without():
    rgb, maps = np.zeros((8, 12, 3), np.uint8), {"a": np.eye(8), "b": np.zeros((8, 8))}
    assert len(fused_figure({"a": Fused(rgb), "b": Fused(rgb)}).axes) == 2
    assert len(fused_figure({"a": Fused(rgb, np.ones((8, 12)))}).axes) == 3
    spectra = spectra_figure(np.ones((1, 5)), {"a": np.ones((1, 5))}, [(0, 0)])
    assert spectra.axes[1].get_xlabel() == "band"
    assert "reach" not in change_figure(maps).axes[0].get_xlabel()
    unknown = {"method": ["a"], "parameters": 1e6, "psnr": 40.0, "cost": np.nan, "measured": True}
    figure = cost_figure(pd.DataFrame(unknown))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["ours"]
    # The legend shows the mark that is drawn where the cost is unknown.
    assert [line.get_marker() for line in figure.legends[0].get_lines()] == ["x"]
    figure_bytes(figure, "png")


def test_other_formats_are_refused():
    with pytest.raises(UserError, match="expected png or pdf"):
        figure_bytes(draw_curves(), "svg")


def test_a_marked_figure_keeps_everything_within_its_page():
    labels = ("LR code, one pixel", "LR code, one frequency")
    labels += ("fused amplitude, one frequency", "fused phase, one frequency")
    figure = add_footer(
        change_figure(dict.fromkeys(labels, np.eye(64)), dict.fromkeys(labels, 0.5)), "smoke form"
    )
    figure_bytes(figure, "png")
    needed, (width_in, height_in) = figure.get_tightbbox(), figure.get_size_inches()
    assert needed.x0 >= 0 <= needed.y0
    assert needed.x1 <= width_in
    assert needed.y1 <= height_in
