"""PSNR against parameters in bubbles sized by cost, with published values beside our runs."""

import math
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from feinfn.errors import UserError
from feinfn.methods.cost import costs, parameters_of
from feinfn.metrics.conventions import CONVENTION
from mhiflab.plan.plan import Entry, Plan
from mhiflab.render.figures.kind import Cases, Drawing
from mhiflab.render.figures.style import COLOURS, COLUMN_IN, new_figure, styled, wrapped
from mhiflab.render.runs import comparable_runs, figure_runs
from mhiflab.render.tables.published import NOT_TOLD, read_published

SIDE_PX = 64
"""Side of the image for which operations are counted."""


@dataclass(frozen=True, kw_only=True)
class CostOptions(Cases):
    """Options of the bubbles."""

    published: str | None = None
    """CSV file of published numbers (see `tables.published`); their protocols differ from ours."""
    data: str = "cave"
    """Data set of the rows to show from that file, at the study's ratio."""


def draw_cost(plan: Plan, options: CostOptions) -> Drawing:
    """Draw PSNR, averaged over test images and seeds; bubbles are operations."""
    entries = comparable_runs(plan, figure_runs(plan, options.cases))
    rows = []
    for case in dict.fromkeys(entry.trial.case for entry in entries):
        case_entries = [entry for entry in entries if entry.trial.case == case]
        means = [entry.run.means() for entry in case_entries]
        if any(one["convention"] != CONVENTION for one in means):
            raise UserError(
                f"{case_entries[0].who}: found no PSNR, as its test images have no reference; "
                "expected one; choose a study of simulated pairs"
            )
        psnr_N = np.array([one["psnr"] for one in means])
        row = {"method": plan.labels[case], "psnr": psnr_N.mean()}
        row["seeds"] = sum(entry.trial.spec.trained for entry in case_entries)
        row["psnr_std"] = psnr_N.std(ddof=1) if len(psnr_N) > 1 else np.nan
        row["parameters"] = parameters_of(case_entries[0].trial.spec.model)
        # Operations are counted for networks only.
        cost = _gflop(case_entries[0]) if row["parameters"] else np.nan
        rows.append(row | {"cost": cost, "measured": True, "source": "runs"})
    measured = pd.DataFrame(rows).assign(protocol=entries[0].trial.spec.protocol.name)
    tables = [measured]
    if options.published:
        ratio = entries[0].trial.spec.protocol.ratio
        tables.append(_quoted_rows(Path(options.published), options.data, ratio))
    numbers = pd.concat(tables, ignore_index=True)
    figure = cost_figure(numbers, f"GFLOP at {SIDE_PX} px")
    return Drawing(figure, numbers.rename(columns={"cost": f"gflop_at_{SIDE_PX}_px"}))


def _gflop(entry: Entry) -> float:
    spec = entry.trial.spec
    return costs(spec.model, spec.protocol.ratio)[0].flop_per_pixel * SIDE_PX**2 / 1e9


def _quoted_rows(path: Path, data: str, ratio: int) -> pd.DataFrame:
    """Return published numbers of the methods with both PSNR and parameters."""
    rows = [
        {
            "method": row.method,
            "psnr": float(row.values["psnr"]),
            "parameters": float(row.parameters) * 1e6,
            "source": row.source,
            "protocol": row.about,
            "measured": False,
        }
        for row in read_published(path, data, ratio)
        if "psnr" in row.values and row.parameters != NOT_TOLD
    ]
    if not rows:
        raise UserError(
            f"{path}: found no row of {data} x{ratio} with parameters and PSNR, expected one or "
            "more; leave the option published out"
        )
    return pd.DataFrame(rows).assign(cost=np.nan)


LARGEST_PT2 = 420.0

SMALLEST_PT2 = 0.03 * LARGEST_PT2
"""Areas of the largest and the smallest bubble in square points."""

FONT_PT = 6.5

Box = tuple[float, float, float, float]
"""Left, bottom, right and top in points."""

NAME_LETTERS = 22
"""Longest line of a name in letters."""

LINE_SHARE = 0.075
"""Height of a line of names beside the axes, as a share of the axes' height."""


@styled
def cost_figure(
    methods: pd.DataFrame, cost: str = "GFLOP", y: str = "PSNR (dB)", quoted: str = "quoted"
) -> Figure:
    """Draw a bubble per method with an area proportional to its cost; a cross if it is unknown.

    `methods` has columns method, parameters, psnr, cost (NaN if unknown) and measured (bool); our
    own measurements are filled, published ones open. Costs below 3 % of the largest are drawn as
    that, so that they stay visible. A method without parameters is a line across, because it has no
    place on a logarithmic axis. Raises `UserError` if no method has parameters.
    """
    methods = methods.sort_values(["parameters", "method"])
    lines, rows = (
        methods[selected].reset_index(drop=True)
        for selected in (methods["parameters"] == 0, methods["parameters"] > 0)
    )
    if rows.empty:
        raise UserError(
            "figure cost: found no case with parameters, expected one or more, over which PSNR is "
            "drawn; choose others: --option cases=[...]"
        )
    figure = new_figure(COLUMN_IN, 2.6)
    axis = figure.subplots()
    largest = rows["cost"].max()
    area = (rows["cost"] / largest * LARGEST_PT2).clip(lower=SMALLEST_PT2)
    _draw_bubbles(axis, rows, area)
    axis.set_xscale("log")
    axis.margins(x=0.17, y=0.22)
    for row in lines.to_dict("records"):
        colour = COLOURS[0 if row["measured"] else 1]
        axis.axhline(row["psnr"], color=colour, linewidth=0.6, linestyle="--", zorder=0.5)
    _name_lines(axis, lines)
    _ticks(axis)
    axis.set_xlabel("parameters (millions)")
    axis.set_ylabel(y)
    handles = _legend_handles(rows, quoted)
    if np.isfinite(largest):
        note = f"area: {cost}, largest {largest:.3g}"
        handles.append(Line2D([], [], linestyle="", label=note))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.1)
    _name_bubbles(figure, axis, rows, np.sqrt(area.fillna(22) / np.pi))
    return figure


def _draw_bubbles(axis: Axes, rows: pd.DataFrame, area: pd.Series) -> None:
    """Draw small bubbles over large ones, and crosses over all."""
    for i in area.sort_values(ascending=False, kind="stable").index:
        row = rows.loc[i]
        has_cost, colour = np.isfinite(row["cost"]), COLOURS[0 if row["measured"] else 1]
        axis.scatter(
            row["parameters"] / 1e6,
            row["psnr"],
            s=area[i] if has_cost else 22,
            marker="o" if has_cost else "x",
            facecolor=colour if row["measured"] or not has_cost else "none",
            edgecolor=None if not has_cost else colour,
            alpha=0.75,
            linewidth=0.9,
        )


def _legend_handles(rows: pd.DataFrame, quoted: str) -> list[Line2D]:
    """Return one handle each for our own and for quoted values, if there are any."""
    handles = []
    for name, colour, measured in (("ours", COLOURS[0], True), (quoted, COLOURS[1], False)):
        group = rows[rows["measured"] == measured]
        if group.empty:
            continue
        marker = "o" if np.isfinite(group["cost"]).any() else "x"
        handle = Line2D([], [], linestyle="", marker=marker, color=colour, label=name)
        handle.set_markerfacecolor(colour if measured else "none")
        handles.append(handle)
    return handles


def _name_lines(axis: Axes, lines: pd.DataFrame) -> None:
    """Write the names of lines beside the axes from the top, without overlap."""
    low, high = axis.get_ylim()
    above = math.inf
    for row in lines.sort_values(["psnr", "method"], ascending=False).to_dict("records"):
        at = (row["psnr"] - low) / (high - low)
        name = wrapped(row["method"], NAME_LETTERS // 2)
        half = LINE_SHARE * (1 + name.count("\n")) / 2
        place = min(at, above - half)
        above = place - half
        axis.annotate(
            name,
            (1, at),
            xycoords="axes fraction",
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            fontsize=FONT_PT,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "linewidth": 0.4,
                "shrinkA": 0,
                "shrinkB": 0,
                # The arrow ends at the left of the name.
                "relpos": (0, 0.5),
            },
        )


def _ticks(axis: Axes) -> None:
    """Write a few round numbers along a logarithmic axis; widen it to a factor of 2 or more."""
    low, high = axis.get_xlim()
    wider = max(1.0, math.sqrt(2 * low / high))
    low, high = low / wider, high * wider
    axis.set_xlim(low, high)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    tens, round_ones = ([n * 10.0**p for p in powers for n in steps] for steps in ((1,), (1, 2, 5)))
    inside = [
        [t for t in ticks if low <= t <= high]
        for ticks in (round_ones, tens, MaxNLocator(4).tick_values(low, high))
    ]
    ticks = next((found for found in inside if 3 <= len(found) <= 8), inside[-1])
    axis.set_xticks(ticks, labels=[f"{t:.4g}" for t in ticks])
    axis.minorticks_off()


def _name_bubbles(figure: Figure, axis: Axes, rows: pd.DataFrame, radius_N: np.ndarray) -> None:
    """Write every name at the nearest free place around its bubble, from left to right."""
    figure.draw_without_rendering()
    points = 72 / figure.dpi
    places = np.column_stack([rows["parameters"] / 1e6, rows["psnr"]])
    centres_N2 = axis.transData.transform(places) * points
    window = axis.get_window_extent()
    boxes = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres_N2, radius_N, strict=True)]
    for i, name in enumerate(wrapped(name, NAME_LETTERS) for name in rows["method"]):
        letters = [len(line) for line in name.splitlines()]
        half_width, half_height = 0.31 * FONT_PT * max(letters), 0.6 * FONT_PT * len(letters)
        spot = None
        for distance, angle in product((1.5, 8, 16, 26, 38), np.arange(12) * np.pi / 6):
            up, right = np.cos(angle), np.sin(angle)
            x = right * (radius_N[i] + distance + half_width)
            y = up * (radius_N[i] + distance + half_height)
            left, low = centres_N2[i] + (x - half_width, y - half_height)
            box = (left, low, left + 2 * half_width, low + 2 * half_height)
            inside = box[0] > window.x0 * points and box[2] < figure.bbox.x1 * points
            inside &= box[1] > window.y0 * points and box[3] < window.y1 * points
            fits = inside and not any(_overlap(box, other) for other in boxes)
            # If no place is free, use the first one.
            if fits or spot is None:
                spot = (x, y, box, distance)
            if fits:
                break
        assert spot is not None, "a first place was tried"
        x, y, box, distance = spot
        boxes.append(box)
        axis.annotate(
            name,
            places[i],
            xytext=(x, y),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=FONT_PT,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4} if distance > 2 else None,
            # A white box keeps lines across from crossing the letters.
            bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "linewidth": 0},
            zorder=4,
        )


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
