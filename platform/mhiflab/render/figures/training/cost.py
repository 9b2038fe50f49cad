"""PSNR against parameters, bubbles as large as the cost; published values beside own runs."""

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
from mhiflab.plan.plan import Entry
from mhiflab.render.figures.kind import Cases, Drawing
from mhiflab.render.figures.style import COLOURS, COLUMN_IN, new_figure, styled, wrapped
from mhiflab.render.runs import RecordedStudy
from mhiflab.render.tables.published import NOT_TOLD, read_published

LARGEST_PT2 = 420.0

SMALLEST_PT2 = 0.03 * LARGEST_PT2

FONT_PT = 6.5

Box = tuple[float, float, float, float]

NAME_LETTERS = 22

LINE_SHARE = 0.075
"""Height of a line of names beside the axes, as a share of theirs."""


@styled
def cost_figure(
    methods: pd.DataFrame, cost: str = "GFLOP", y: str = "PSNR (dB)", quoted: str = "quoted"
) -> Figure:
    """Draw a bubble a method; its area is proportional to the cost, a cross stands for none known.

    Costs below 3 % of the largest are drawn as that much, so that they are seen. A method without
    parameters is a line across, as a logarithm has no place for it. Raises `UserError` where none
    has parameters.
    `methods` has columns method, parameters, psnr, cost (NaN where unknown) and measured (bool):
    numbers of others are drawn open, apart from our own.
    """
    methods = methods.sort_values(["parameters", "method"])
    lines, rows = (
        methods[chosen].reset_index(drop=True)
        for chosen in (methods["parameters"] == 0, methods["parameters"] > 0)
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
    # Small ones over large ones, and crosses over all.
    for i in area.sort_values(ascending=False, kind="stable").index:
        row = rows.loc[i]
        known, colour = np.isfinite(row["cost"]), COLOURS[0 if row["measured"] else 1]
        axis.scatter(
            row["parameters"] / 1e6,
            row["psnr"],
            s=area[i] if known else 22,
            marker="o" if known else "x",
            facecolor=colour if row["measured"] or not known else "none",
            edgecolor=None if not known else colour,
            alpha=0.75,
            linewidth=0.9,
        )
    axis.set_xscale("log")
    axis.margins(x=0.17, y=0.22)
    for row in lines.to_dict("records"):
        colour = COLOURS[0 if row["measured"] else 1]
        axis.axhline(row["psnr"], color=colour, linewidth=0.6, linestyle="--", zorder=0.5)
    _name_lines(axis, lines)
    _ticks(axis)
    axis.set_xlabel("parameters (millions)")
    axis.set_ylabel(y)
    handles = []
    for name, colour, of in (("ours", COLOURS[0], True), (quoted, COLOURS[1], False)):
        kind = rows[rows["measured"] == of]
        if kind.empty:
            continue
        bubbles = np.isfinite(kind["cost"]).any()
        one = Line2D([], [], linestyle="", marker="o" if bubbles else "x", color=colour, label=name)
        one.set_markerfacecolor(colour if of else "none")
        handles.append(one)
    if np.isfinite(largest):
        note = f"area: {cost}, largest {largest:.3g}"
        handles.append(Line2D([], [], linestyle="", label=note))
    figure.legend(handles=handles, loc="outside upper center", ncols=3, handletextpad=0.1)
    _name(figure, axis, rows, np.sqrt(area.fillna(22) / np.pi))
    return figure


def _name_lines(axis: Axes, lines: pd.DataFrame) -> None:
    """Write the names of lines beside the axes, from the top, none over another."""
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
                # From the left of the name.
                "relpos": (0, 0.5),
            },
        )


def _ticks(axis: Axes) -> None:
    """Write a few round numbers along a logarithmic axis, which spans a factor of 2 at least."""
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


def _name(figure: Figure, axis: Axes, rows: pd.DataFrame, radius_N: np.ndarray) -> None:
    """Write every name at the nearest place around its bubble that is free, in reading order."""
    figure.draw_without_rendering()
    points = 72 / figure.dpi
    places = np.column_stack([rows["parameters"] / 1e6, rows["psnr"]])
    centres_N2 = axis.transData.transform(places) * points
    window = axis.get_window_extent()
    taken = [(x - r, y - r, x + r, y + r) for (x, y), r in zip(centres_N2, radius_N, strict=True)]
    for i, name in enumerate(wrapped(name, NAME_LETTERS) for name in rows["method"]):
        letters = [len(line) for line in name.splitlines()]
        half_width, half_height = 0.31 * FONT_PT * max(letters), 0.6 * FONT_PT * len(letters)
        free = None
        for distance, angle in product((1.5, 8, 16, 26, 38), np.arange(12) * np.pi / 6):
            up, right = np.cos(angle), np.sin(angle)
            x = right * (radius_N[i] + distance + half_width)
            y = up * (radius_N[i] + distance + half_height)
            left, low = centres_N2[i] + (x - half_width, y - half_height)
            box = (left, low, left + 2 * half_width, low + 2 * half_height)
            inside = box[0] > window.x0 * points and box[2] < figure.bbox.x1 * points
            inside &= box[1] > window.y0 * points and box[3] < window.y1 * points
            good = inside and not any(_overlap(box, other) for other in taken)
            # Where no place is free, the first one has to do.
            if good or free is None:
                free = (x, y, box, distance)
            if good:
                break
        assert free is not None, "a first place was tried"
        x, y, box, distance = free
        taken.append(box)
        axis.annotate(
            name,
            places[i],
            xytext=(x, y),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=FONT_PT,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4} if distance > 2 else None,
            # Lines across lie under the letters.
            bbox={"boxstyle": "square,pad=0.05", "facecolor": "white", "linewidth": 0},
            zorder=4,
        )


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


SIDE_PX = 64
"""Side of the image that costs are told for."""


@dataclass(frozen=True, kw_only=True)
class CostOptions(Cases):
    """Options of the bubbles."""

    published: str | None = None
    """CSV file of published numbers (see `mhiflab.published`); their protocols differ from ours."""
    data: str = "cave"
    """Data set whose rows of that file are shown, at the study's ratio."""


def draw_cost(recorded: RecordedStudy, options: CostOptions) -> Drawing:
    """Draw the mean over seeds of the mean over test images; bubbles are operations."""
    entries = recorded.comparable(recorded.entries(options.cases))
    rows = []
    for case in dict.fromkeys(entry.trial.case for entry in entries):
        of_case = [entry for entry in entries if entry.trial.case == case]
        means = [recorded.means(entry) for entry in of_case]
        if any(one["convention"] != CONVENTION for one in means):
            raise UserError(
                f"{of_case[0].who}: found no PSNR, as its test images have no reference; expected "
                "one; choose a study of simulated pairs"
            )
        psnr_N = np.array([one["psnr"] for one in means])
        row = {"method": recorded.labels[case], "psnr": psnr_N.mean()}
        row["seeds"] = sum(entry.trial.spec.trained for entry in of_case)
        row["psnr_std"] = psnr_N.std(ddof=1) if len(psnr_N) > 1 else np.nan
        row["parameters"] = parameters_of(of_case[0].trial.spec.model)
        # What learns nothing is no network whose operations could be counted.
        cost = _gflop(of_case[0]) if row["parameters"] else np.nan
        rows.append(row | {"cost": cost, "measured": True, "source": "runs"})
    own = pd.DataFrame(rows).assign(protocol=entries[0].trial.spec.protocol.name)
    tables = [own]
    if options.published:
        ratio = entries[0].trial.spec.protocol.ratio
        tables.append(_quoted(Path(options.published), options.data, ratio))
    numbers = pd.concat(tables, ignore_index=True)
    figure = cost_figure(numbers, f"GFLOP at {SIDE_PX} px")
    return Drawing(figure, numbers.rename(columns={"cost": f"gflop_at_{SIDE_PX}_px"}))


def _gflop(entry: Entry) -> float:
    spec = entry.trial.spec
    return costs(spec.model, spec.protocol.ratio)[0].flop_per_pixel * SIDE_PX**2 / 1e9


def _quoted(path: Path, data: str, ratio: int) -> pd.DataFrame:
    """Return others' numbers; who does not tell PSNR or parameters has no place in the plane."""
    rows = [
        {
            "method": one.method,
            "psnr": float(one.values["psnr"]),
            "parameters": float(one.parameters) * 1e6,
            "source": one.source,
            "protocol": one.about,
            "measured": False,
        }
        for one in read_published(path, data, ratio)
        if "psnr" in one.values and one.parameters != NOT_TOLD
    ]
    if not rows:
        raise UserError(
            f"{path}: found no row of {data} x{ratio} with parameters and PSNR, expected one or "
            "more; leave the option published out"
        )
    return pd.DataFrame(rows).assign(cost=np.nan)
