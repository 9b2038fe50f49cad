"""PSNR against parameters in bubbles sized by cost, with published values beside our runs."""

import math
from dataclasses import dataclass
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Bbox

from feinfn.errors import UserError
from feinfn.methods.cost import flop_per_pixel, parameters_of
from feinfn.metrics.label import CONVENTION
from mhiflab.plan.plan import Finished, Plan
from mhiflab.render.figures.kind import Cases, Drawing
from mhiflab.render.figures.style import COLOURS, COLUMN_IN, new_figure, styled, wrapped
from mhiflab.render.runs import comparable_runs
from mhiflab.render.tables.published import NOT_TOLD, read_published

SIDE_PX = 64
"""Side of the image for which operations are counted."""

LARGEST_PT2 = 420.0

SMALLEST_PT2 = 0.03 * LARGEST_PT2
"""Areas of the largest and the smallest bubble in square points."""

CROSS_PT2 = 22
"""Area of a cross, which stands for an unknown cost."""

FONT_PT = 6.5

NAME_LETTERS = 22
"""Longest line of a name in letters."""

ARROW = {"arrowstyle": "-", "linewidth": 0.4}
"""Style of the line from a name to its mark."""

LINE_SHARE = 0.075
"""Height of a line of names beside the axes, as a share of the axes' height."""


@dataclass(frozen=True, kw_only=True)
class Cost(Cases):
    """PSNR, averaged over test images and seeds, in bubbles of operations."""

    published: str | None = None
    """CSV file of published numbers (see `tables.published`); their protocols differ from ours."""
    data: str = "cave"
    """Data set of the rows to show from that file, at the study's ratio."""

    def draw(self, plan: Plan) -> Drawing:
        entries = comparable_runs(plan, self.cases)
        protocol = entries[0].trial.spec.protocol
        by_case = groupby(entries, lambda entry: entry.trial.case)
        rows = [_measured_row(plan, list(case_entries)) for _, case_entries in by_case]
        tables = [pd.DataFrame(rows).assign(protocol=protocol.name)]
        if self.published:
            tables.append(_quoted_rows(Path(self.published), self.data, protocol.ratio))
        numbers = pd.concat(tables, ignore_index=True)
        named = numbers.rename(columns={"cost": f"gflop_at_{SIDE_PX}_px"})
        return cost_figure(numbers), named


def _measured_row(plan: Plan, entries: list[Finished]) -> dict[str, Any]:
    """Return the numbers of a case's runs; raise `UserError` if they have no PSNR."""
    means, trial = [entry.run.means() for entry in entries], entries[0].trial
    if any(one["convention"] != CONVENTION for one in means):
        raise UserError(
            f"{entries[0].who}: found no PSNR, as its test images have no reference; expected one; "
            "choose a study of simulated pairs"
        )
    psnr_N = np.array([one["psnr"] for one in means])
    parameters = parameters_of(trial.spec.model)
    # Operations are counted for networks only.
    flop = flop_per_pixel(trial.spec.model, trial.spec.protocol.ratio) if parameters else np.nan
    return {
        "method": plan.labels[trial.case],
        "psnr": psnr_N.mean(),
        "seeds": len(entries) if trial.spec.trained else 0,
        "psnr_std": psnr_N.std(ddof=1) if len(psnr_N) > 1 else np.nan,
        "parameters": parameters,
        "cost": flop * SIDE_PX**2 / 1e9,
        "measured": True,
        "source": "runs",
    }


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


@styled
def cost_figure(methods: pd.DataFrame) -> Figure:
    """Draw a bubble per method with an area proportional to its cost; a cross if it is unknown.

    `methods` has columns method, parameters, psnr, cost (NaN if unknown) and measured (bool); our
    own measurements are filled, published ones open. Costs below 3 % of the largest are drawn as
    that, so that they stay visible. A method without parameters is a line across, because it has no
    place on a logarithmic axis. Raises `UserError` if no method has parameters.
    """
    methods = methods.sort_values(["parameters", "method"]).reset_index(drop=True)
    methods["colour"] = [COLOURS[0 if measured else 1] for measured in methods["measured"]]
    lines = methods[methods["parameters"] == 0]
    rows = methods[methods["parameters"] > 0].reset_index(drop=True)
    if rows.empty:
        raise UserError(
            "figure cost: found no case with parameters, expected one or more, over which PSNR is "
            "drawn; choose others: --option cases=[...]"
        )
    figure = new_figure(2.6, COLUMN_IN)
    axis = figure.subplots()
    largest = rows["cost"].max()
    rows["area"] = (rows["cost"] / largest * LARGEST_PT2).clip(lower=SMALLEST_PT2)
    _draw_bubbles(axis, rows)
    axis.set_xscale("log")
    axis.margins(x=0.17, y=0.22)
    for psnr, colour in zip(lines["psnr"], lines["colour"], strict=True):
        axis.axhline(psnr, color=colour, linewidth=0.6, linestyle="--", zorder=0.5)
    _name_lines(axis, lines)
    _ticks(axis)
    axis.set(xlabel="parameters (millions)", ylabel="PSNR (dB)")
    handles = _legend_handles(rows)
    if np.isfinite(largest):
        note = f"area: GFLOP at {SIDE_PX} px, largest {largest:.3g}"
        handles.append(Line2D([], [], linestyle="", label=note))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.1)
    _name_bubbles(figure, axis, rows)
    return figure


def _draw_bubbles(axis: Axes, rows: pd.DataFrame) -> None:
    """Draw small bubbles over large ones, and crosses over all."""
    for row in rows.sort_values("area", ascending=False, kind="stable").to_dict("records"):
        known = np.isfinite(row["cost"])
        axis.scatter(
            row["parameters"] / 1e6,
            row["psnr"],
            s=row["area"] if known else CROSS_PT2,
            marker="o" if known else "x",
            facecolor=row["colour"] if row["measured"] or not known else "none",
            edgecolor=row["colour"] if known else None,
            alpha=0.75,
            linewidth=0.9,
        )


def _legend_handles(rows: pd.DataFrame) -> list[Line2D]:
    """Return one handle each for our own and for quoted values, if there are any."""
    handles = []
    for name, measured in (("ours", True), ("quoted", False)):
        group = rows[rows["measured"] == measured]
        if len(group):
            marker = "o" if group["cost"].notna().any() else "x"
            colour = group["colour"].iloc[0]
            fill = colour if measured else "none"
            style = {"color": colour, "markerfacecolor": fill, "marker": marker}
            handles.append(Line2D([], [], linestyle="", label=name, **style))
    return handles


def _name_lines(axis: Axes, lines: pd.DataFrame) -> None:
    """Write the names of lines beside the axes from the top, without overlap."""
    low, high = axis.get_ylim()
    above = math.inf
    ordered = lines.sort_values(["psnr", "method"], ascending=False)
    for psnr, method in zip(ordered["psnr"], ordered["method"], strict=True):
        at = (psnr - low) / (high - low)
        name = wrapped(method, NAME_LETTERS // 2)
        half = LINE_SHARE * (1 + name.count("\n")) / 2
        place = min(at, above - half)
        above = place - half
        # The arrow ends at the left of the name.
        arrow = {"shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5), **ARROW}
        axis.annotate(
            name,
            (1, at),
            xycoords="axes fraction",
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            fontsize=FONT_PT,
            annotation_clip=False,
            arrowprops=arrow,
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


def _name_bubbles(figure: Figure, axis: Axes, rows: pd.DataFrame) -> None:
    """Write every name at the nearest free place around its bubble, from left to right."""
    figure.draw_without_rendering()
    points, window = 72 / figure.dpi, axis.get_window_extent()
    room = (window.x0, window.y0, figure.bbox.x1, window.y1)
    left, low, right, high = (points * pixels for pixels in room)
    places_N2 = np.column_stack([rows["parameters"] / 1e6, rows["psnr"]])
    centres_N2 = axis.transData.transform(places_N2) * points
    radius_N = np.sqrt(rows["area"].fillna(CROSS_PT2) / np.pi)
    boxes = [Bbox([at - r, at + r]) for at, r in zip(centres_N2, radius_N, strict=True)]
    for i, name in enumerate(wrapped(name, NAME_LETTERS) for name in rows["method"]):
        lines = name.splitlines()
        half = np.array([0.31 * FONT_PT * max(map(len, lines)), 0.6 * FONT_PT * len(lines)])
        spots = []
        for distance, angle in product((1.5, 8, 16, 26, 38), np.arange(12) * np.pi / 6):
            offset = np.array([np.sin(angle), np.cos(angle)]) * (radius_N[i] + distance + half)
            at = centres_N2[i] + offset
            spots.append((offset, distance, Bbox([at - half, at + half])))
        free = (
            spot
            for spot in spots
            if left < spot[2].x0 and spot[2].x1 < right and low < spot[2].y0 and spot[2].y1 < high
            if not any(spot[2].overlaps(box) for box in boxes)
        )
        offset, distance, box = next(free, spots[0])
        boxes.append(box)
        axis.annotate(
            name,
            places_N2[i],
            xytext=offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=FONT_PT,
            arrowprops=ARROW if distance > 2 else None,
            # A white box keeps lines across from crossing the letters.
            bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "linewidth": 0},
            zorder=4,
        )
