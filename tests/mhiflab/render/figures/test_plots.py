"""Plots of plain numbers: readable, and true to them, however many there are."""

import itertools

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from feinfn.errors import UserError
from mhiflab.render.figures.images.errors import errors_figure
from mhiflab.render.figures.images.fused import fused_figure
from mhiflab.render.figures.images.spectra import spectra_figure
from mhiflab.render.figures.network.change import change_figure
from mhiflab.render.figures.network.response import response_figure
from mhiflab.render.figures.style import Panel, error_limit, figure_bytes, line_style
from mhiflab.render.figures.training.cost import cost_figure
from mhiflab.render.figures.training.curves import curves_figure

COSTS = ["method", "parameters", "psnr", "cost", "measured"]
UNIT = "mean absolute error"


def bubbles(*rows: tuple) -> Figure:
    return cost_figure(pd.DataFrame(rows, columns=COSTS).astype({"cost": float}))


def crowded() -> Figure:
    return bubbles(
        ("PSRT", 247_455, 50.47, 2.22, False),
        ("BDT", 2_668_027, 52.30, 4.16, False),
        ("DSPNet", 6_056_155, 51.18, 13.62, False),
        ("DHIF", 22_461_913, 51.07, 108.5, False),
        ("3DT-Net", 3_463_536, 51.38, np.nan, False),
        ("MIMO-SST", 4_983_042, 50.98, 3.16, False),
        ("Fusformer", 504_463, 44.52, np.nan, False),
        ("FeINFN", 3_164_816, 52.0, 23.92, True),
    )


def boxes_apart(figure: Figure, texts: list[Text]) -> bool:
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    boxes = [text.get_window_extent(renderer) for text in texts]
    return not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_crowded_bubbles_have_readable_names_inside_the_figure():
    figure = crowded()
    names = figure.axes[0].texts
    assert len(names) == 8
    assert boxes_apart(figure, names)
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 6
    box = figure.get_tightbbox(FigureCanvasAgg(figure).get_renderer())
    assert min(box.x0, box.y0) >= -0.01
    assert box.x1 <= figure.get_figwidth() + 0.01
    assert box.y1 <= figure.get_figheight() + 0.01


def test_bands_show_one_standard_deviation_of_common_steps():
    cells = {"method": "a", "seed": [0, 0, 1, 1, 1], "step": [0, 1, 0, 1, 2], "value": range(5)}
    axis = curves_figure(pd.DataFrame(cells)).axes[0]
    np.testing.assert_allclose(axis.lines[0].get_xydata(), [[0, 1], [1, 2]])
    corners = axis.collections[0].get_paths()[0].vertices
    assert corners[:, 1].max() == pytest.approx(2 + np.sqrt(2))


def test_bubbles_are_as_large_as_the_cost_says():
    sizes = {tuple(c.get_offsets()[0]): c.get_sizes()[0] for c in crowded().axes[0].collections}
    assert sizes[3.164816, 52.0] / sizes[6.056155, 51.18] == pytest.approx(23.92 / 13.62)


@pytest.mark.parametrize("parameters", [(0, 30_000), (33_738, 33_742), (4_000, 22e6)])
def test_any_numbers_of_parameters_have_a_place_and_readable_ticks(parameters):
    rows = [(f"method {n}", n, 40.0 + i, n / 1e6, True) for i, n in enumerate(parameters)]
    axis = bubbles(*rows).axes[0]
    assert len(axis.texts) == 2
    assert len(axis.collections) == sum(n > 0 for n in parameters)
    ticks = [text.get_text() for text in axis.get_xticklabels()]
    assert 3 <= len(set(ticks)) == len(ticks) <= 8


def test_without_any_parameters_there_is_no_plane():
    with pytest.raises(UserError, match="found no case with parameters"):
        bubbles(("a", 0, 40.0, np.nan, True))


def test_small_bubbles_and_crosses_lie_over_large_bubbles():
    cross, small = ("cross", 1e6, 40.0, np.nan, False), ("small", 1e6, 40.0, 1.0, True)
    drawn = bubbles(cross, small, ("large", 2e6, 40.0, 9.0, True)).axes[0].collections
    sizes = [one.get_sizes()[0] for one in drawn]
    assert sizes[0] == pytest.approx(9 * sizes[1])
    assert drawn[2].get_paths()[0].vertices.shape == (4, 2)
    assert drawn[0].get_zorder() <= drawn[1].get_zorder() <= drawn[2].get_zorder()


def test_a_legend_shows_the_marks_that_are_drawn():
    figure = bubbles(("a", 1e6, 40.0, np.nan, True))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["ours"]
    assert [line.get_marker() for line in figure.legends[0].get_lines()] == ["x"]


def test_names_are_shown_as_they_are():
    names = ["_base", "$x$ and $\\foo$", "costs $5 or $6"]
    rgb, one, eye = np.zeros((8, 8, 3), np.uint8), np.ones((1, 5)), np.eye(8)
    cells = {"seed": [1, 1, 2, 2], "step": [1, 2, 1, 2], "value": [1.0, 2, 2, 3]}
    figures = [
        curves_figure(pd.concat([pd.DataFrame({"method": name, **cells}) for name in names])),
        spectra_figure(one, dict.fromkeys(names, one), [(0, 0)], None, rgb, (0, 0)),
        response_figure(np.arange(5) / 10, ["input"], {name: {"input": one[0]} for name in names}),
        bubbles(*((name, 1e6, 40.0, 1.0, True) for name in names)),
        fused_figure([Panel(name, rgb) for name in names]),
        errors_figure([Panel(name, eye) for name in names], UNIT),
        change_figure([Panel(name, eye) for name in names]),
    ]
    for figure in figures:
        figure_bytes(figure)
        visible = [t for t in figure.findobj(Text) if t.get_visible()]
        found = {t: " ".join(t.get_text().split()) for t in visible}
        shown = [t for t, text in found.items() if text in names]
        assert sorted(found[t] for t in shown) == sorted(names)
        assert not any(t.get_parse_math() for t in shown)


def panels(count: int, height: int) -> tuple[list[Panel], list[Panel]]:
    """Return maps of errors, and images with errors."""
    rgb, error = np.zeros((height, 32, 3), np.uint8), np.ones((height, 32), np.float16)
    titles, note = [f"A method of name {i}" for i in range(count)], "40.00 dB\n2.00°"
    maps = [Panel(title, error, note=note) for title in titles]
    return maps, [Panel(title, rgb, error, note) for title in titles]


@pytest.mark.parametrize("count", [7, 20])
@pytest.mark.parametrize("height", [32, 64])
def test_many_pictures_fit_a_page(count, height):
    maps, images = panels(count, height)
    for figure in (errors_figure(maps, UNIT), fused_figure(images, (0, 0, 8))):
        assert figure.get_figheight() <= 9
        assert figure.get_figwidth() <= 6.9
        texts = [t for a in figure.axes for t in (a.title, a.xaxis.label) if t.get_text()]
        assert len(texts) >= 2 * count
        assert boxes_apart(figure, texts)


def test_more_pictures_than_fit_a_page_are_refused():
    maps, images = panels(60, 64)
    with pytest.raises(UserError, match="found 60 pictures, expected fewer"):
        errors_figure(maps, UNIT)
    with pytest.raises(UserError, match="found 60 pictures, expected fewer"):
        fused_figure(images)


def test_errors_share_one_scale_and_black_pixels_do_not_count():
    a, b = np.full((4, 4), 1.0), np.full((4, 4), 3.0)
    a[0, 0] = np.nan
    axes = errors_figure([Panel("a", a), Panel("b", b)], UNIT).axes
    assert {axis.images[0].get_clim() for axis in axes[:2]} == {(0.0, 3.0)}
    assert error_limit([np.zeros((2, 2))]) == 1


def test_more_lines_than_can_be_told_apart_are_refused():
    cells = [{"method": str(n), "seed": 0, "step": 0, "value": n} for n in range(50)]
    assert len(curves_figure(pd.DataFrame(cells[:49])).axes[0].lines) == 49
    assert len({tuple(line_style(place).values()) for place in range(49)}) == 49
    with pytest.raises(UserError, match="at most 49"):
        curves_figure(pd.DataFrame(cells))


def test_images_stand_without_errors_zoom_or_wavelengths():
    rgb = np.zeros((8, 12, 3), np.uint8)
    assert len(fused_figure([Panel("a", rgb), Panel("b", rgb)]).axes) == 2
    assert len(fused_figure([Panel("a", rgb, np.ones((8, 12)))]).axes) == 3
    one = np.ones((1, 5))
    spectra = spectra_figure(one, {"a": one}, [(0, 0)], None, rgb, (0, 0))
    assert spectra.axes[3].get_xlabel() == "band"
    figure_bytes(change_figure([Panel("even", np.zeros((8, 8)))]))


def test_other_formats_are_refused():
    with pytest.raises(UserError, match="expected png or pdf"):
        figure_bytes(Figure(), "svg")


def test_the_style_is_that_of_the_project():
    with mpl.rc_context({"font.size": 20, "image.cmap": "jet", "savefig.dpi": 50}):
        other = figure_bytes(crowded())
    assert other == figure_bytes(crowded())
