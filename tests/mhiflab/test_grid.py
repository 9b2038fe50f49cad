"""Grids on consoles: numbers stay whole, texts are wrapped, however narrow it is."""

import numpy as np
import pandas as pd
import pytest
from printed import LONG, WIDTHS, check_printed, printed

from mhiflab.cli import cluster, data
from mhiflab.cluster.doctor import Finding
from mhiflab.grid import Cell, Grid, texts
from mhiflab.paths import study_path
from mhiflab.plan.costs import cost_tables
from mhiflab.plan.plan import read_plan
from mhiflab.plan.show import state_grid, status_table
from mhiflab.render.fused import convention_grid
from mhiflab.render.tables.table import frame_grid


def number(text: str, below: str = "", mark: str = "") -> Cell:
    return Cell(text, mark, below, float(text))


SPREAD = Grid(
    ["Method", "PSNR (dB) ↑", "SAM (deg) ↓", "ERGAS ↓", "SSIM ↑"],
    [
        "CAVE x4",
        [
            Cell("Ours"),
            number("47.25", "± 0.32 (2.11)", "best"),
            number("2.113", "± 0.021 (0.411)"),
            number("1.113", "± 0.021 (0.411)"),
            number("0.9912", "± 0.0003 (0.0021)"),
        ],
        "CAVE x8, published",
        [Cell(LONG), number("46.02", "(2.11)"), *texts("-", "-", "-")],
    ],
    "A title",
)


def test_numbers_are_whole_on_every_console():
    check_printed(SPREAD)
    wide = printed(SPREAD, 200)
    assert "47.25 ± 0.32 (2.11)" in "\n".join(wide)
    assert len(wide) < len(printed(SPREAD, 80))


def test_rows_become_paragraphs_if_numbers_leave_names_no_room():
    lines = printed(SPREAD, 40)
    assert [line.rstrip() for line in lines[:4]] == [
        "A title",
        "CAVE x4",
        "Ours",
        "  PSNR (dB) ↑: 47.25 ± 0.32 (2.11)",
    ]
    assert lines[-2].strip() == "ERGAS ↓: -"


def test_markup_in_cells_is_text():
    grid = Grid(["a[/x]"], [texts("[bold] [/y]"), "[/z]"], "[t]")
    for word in ("a[/x]", "[bold] [/y]", "[/z]", "[t]"):
        assert word in "\n".join(printed(grid, 80))


def test_an_empty_grid_is_its_head():
    assert printed(Grid(["case", "seed"], []), 80)[0].split() == ["case", "seed"]


@pytest.fixture
def shown(monkeypatch):
    """Return the list of grids that commands print."""
    grids: list[Grid] = []
    for module in (data, cluster):
        printer = type("Printer", (), {})()
        printer.print = lambda *parts, **_: grids.extend(x for x in parts if isinstance(x, Grid))
        monkeypatch.setattr(module, "out", printer)
    return grids


def test_states_and_costs_of_long_labels(write_study):
    cases = {"a": {"label": LONG}, "b": {"label": "b", "set": {"model.fourier_branch": False}}}
    plan = read_plan(write_study(cases=cases, seeds=[1, 2, 3]))
    check_printed(state_grid(plan, progress=True))
    (status, *_) = status_table(plan).renderables
    assert isinstance(status, Grid)
    check_printed(status)
    for grid in cost_tables(study_path("demo")):
        check_printed(grid)


def test_scenes_of_long_names(shown, tmp_path):
    for name in (LONG, "other"):
        np.save(tmp_path / f"{name}.npy", np.full((31, 8, 8), 0.5, np.float32))
    data.inspect(tmp_path, bands_axis=0)
    data.protocols()
    data.splits()
    assert len(shown) == 3
    for grid in shown:
        check_printed(grid)
    for width in WIDTHS:
        text = " ".join(" ".join(printed(shown[0], width)).split())
        assert "31 bands" in text
        assert "8x8" in text


def test_findings_of_the_doctor(shown, monkeypatch):
    findings = [Finding("10.0.0.1", "code", LONG, ""), Finding("10.0.0.2", "code", "no", LONG)]
    monkeypatch.setattr("mhiflab.cluster.doctor.examine", lambda *_: findings)
    with pytest.raises(Exception, match="1 of 2 checks failed"):
        cluster.doctor()
    check_printed(shown[0])


def test_conventions_and_robustness():
    values = {"psnr": 40.123, "sam": 2.5}
    check_printed(convention_grid(dict.fromkeys(("matlab", "ergas_100_4", "uint8", LONG), values)))
    cells = [{"sigma_factor": 1.0, "srf": LONG, "snr_db": float("inf"), **values}] * 2
    check_printed(frame_grid(pd.DataFrame(cells), "title"))
