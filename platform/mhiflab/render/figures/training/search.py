"""Suggestions of a search, as a table and as a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from feinfn.files import write_bytes
from feinfn.metrics.label import LABELS
from mhiflab.plan.plan import Plan
from mhiflab.plan.search import SearchPlan
from mhiflab.render.figures.style import COLOURS, figure_bytes, new_figure, styled
from mhiflab.study.search import COSTS

BEST = COLOURS[2]

MARKS = {
    "trained": (COLOURS[0], "o", 16, 2),
    "stopped early": ("#999999", "x", 22, 2),
    "default": (COLOURS[1], "D", 40, 3),
    "best": (BEST, "*", 110, 3),
    "front": (BEST, "*", 110, 3),
}
"""Colour, shape, area and order of drawing of suggestions by label."""


def search_frame(plan: SearchPlan) -> pd.DataFrame:
    """Return one row per suggestion: index, values, epochs, objectives, state and run key."""
    rows = []
    for suggestion in plan.suggestions:
        row = {"index": suggestion.index, **suggestion.values}
        if plan.search.population:
            row["since"] = suggestion.since
        row["epochs"] = suggestion.epochs
        results = suggestion.objectives or [None] * len(plan.search.objectives)
        row |= dict(zip(plan.search.objectives, results, strict=True))
        rows.append(row | {"state": suggestion.state, "run_key": suggestion.key})
    return pd.DataFrame(rows)


def write_searches(plan: Plan, folder: Path) -> list[Path]:
    """Write search.csv and search.png; later searches of a study are numbered from 2."""
    written = []
    for i, search in enumerate(plan.searches):
        name = f"search-{i + 1}" if i else "search"
        text = search_frame(search).to_csv(index=False, lineterminator="\n")
        write_bytes(folder / f"{name}.csv", text.encode())
        write_bytes(folder / f"{name}.png", figure_bytes(search_figure(search)))
        written += [folder / f"{name}.csv", folder / f"{name}.png"]
    return written


@styled
def search_figure(plan: SearchPlan) -> Figure:
    """Draw the objective against every searched value, and the best so far or the Pareto front."""
    search = plan.search
    count = len(search.space) + 1
    figure = new_figure(2.8, 2.2 * count + 0.4)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, (key, value_range) in zip(axes, search.space.items(), strict=False):
        places = [suggestion.values[key] for suggestion in plan.suggestions]
        if value_range.choice:
            # The base's own value need not be one of the choices.
            choices, base = list(value_range.choice), plan.values_of_base()[key]
            choices += [] if base in choices else [base]
            axis.set_xticks(range(len(choices)), [str(c) for c in choices])
            places = [choices.index(value) for value in places]
        _draw_points(axis, plan, places)
        axis.set_xlabel(key)
        if value_range.log_uniform:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
    draw_last = _draw_history if search.single else _draw_front
    draw_last(axes[-1], plan)
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    figure.suptitle(f"{plan.title}, {len(plan.finished)} suggestions; validation scenes")
    return figure


def _name(objective: str) -> str:
    kind, _, metric = objective.partition("_")
    return f"validation {LABELS[metric].heading}" if kind == "val" else objective.replace("_", " ")


def _draw_points(axis: Axes, plan: SearchPlan, x: Sequence[Any]) -> None:
    """Draw every suggestion's first objective over x; base and best have marks of their own."""
    best = {suggestion.index for suggestion in plan.best}

    groups: dict[str, list[tuple[Any, float]]] = {}
    for one, place in zip(plan.suggestions, x, strict=True):
        label = "stopped early" if one.state == "stopped" else "trained"
        if one.index in best:
            label = "best" if plan.search.single else "front"
        if one.index == 0:
            label = "default"
        if one.objectives is not None:
            groups.setdefault(label, []).append((place, one.objectives[0]))
    for label, points in groups.items():
        colour, marker, size, zorder = MARKS[label]
        x_N, y_N = zip(*points, strict=True)
        axis.scatter(x_N, y_N, c=colour, marker=marker, s=size, label=label, zorder=zorder)
    axis.set_ylabel(_name(next(iter(plan.search.objectives))))


def _draw_history(axis: Axes, plan: SearchPlan) -> None:
    _draw_points(axis, plan, [suggestion.index for suggestion in plan.suggestions])
    mode = next(iter(plan.search.objectives.values()))
    finished = [(s.index, s.objectives[0]) for s in plan.suggestions if s.objectives]
    best = (np.maximum if mode == "max" else np.minimum).accumulate(
        [value for _, value in finished]
    )
    places = [index for index, _ in finished]
    axis.step(places, best, where="post", color="black", label="best so far")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("suggestion")


def _draw_front(axis: Axes, plan: SearchPlan) -> None:
    second = list(plan.search.objectives)[1]
    _draw_points(axis, plan, [s.objectives and s.objectives[1] for s in plan.suggestions])
    points = sorted((one.objectives[1], one.objectives[0]) for one in plan.best if one.objectives)
    axis.plot(*zip(*points, strict=True), color=BEST, linewidth=1)
    if second in COSTS:
        axis.xaxis.set_major_formatter(EngFormatter())
    axis.set_xlabel(_name(second))
