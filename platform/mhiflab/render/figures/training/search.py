"""Suggestions of a search, as a table and as a figure."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter

from feinfn.files import write_bytes
from mhiflab.plan.plan import Plan
from mhiflab.plan.search import SearchPlan
from mhiflab.plan.suggest import Suggestion
from mhiflab.render.figures.style import new_figure, png, styled
from mhiflab.render.metrics import METRICS
from mhiflab.study.search import COSTS

# Colours of Okabe and Ito (2008), distinct for all kinds of colour vision; shapes differ as well.
OTHERS, STOPPED, DEFAULT, BEST = "#0072B2", "#999999", "#D55E00", "#009E73"


def search_frame(plan: SearchPlan) -> pd.DataFrame:
    """Return one row per suggestion: index, values, epochs, objectives, state and run key."""
    rows = []
    for suggestion in plan.suggestions:
        values = dict(zip(plan.search.objectives, suggestion.objectives or (), strict=False))
        objectives = {name: values.get(name) for name in plan.search.objectives}
        columns = {
            "epochs": suggestion.epochs,
            **objectives,
            "state": suggestion.state,
            "run_key": suggestion.key,
        }
        if plan.search.population:
            columns = {"since": suggestion.since, **columns}
        rows.append({"index": suggestion.index, **suggestion.values, **columns})
    return pd.DataFrame(rows)


def write_searches(plan: Plan, folder: Path) -> list[Path]:
    """Write search.csv and search.png; later searches of a study are numbered from 2."""
    written = []
    for i, search in enumerate(plan.searches):
        name = f"search-{i + 1}" if i else "search"
        text = search_frame(search).to_csv(index=False, lineterminator="\n")
        write_bytes(folder / f"{name}.csv", text.encode())
        write_bytes(folder / f"{name}.png", png(search_figure(search)))
        written += [folder / f"{name}.csv", folder / f"{name}.png"]
    return written


@styled
def search_figure(plan: SearchPlan) -> Figure:
    """Draw the objective against every searched value, and the best so far or the Pareto front."""
    search = plan.search
    count = len(search.space) + 1
    figure = new_figure(2.2 * count + 0.4, 2.8)
    axes = figure.subplots(1, count, squeeze=False)[0]
    for axis, (key, value_range) in zip(axes, search.space.items(), strict=False):
        x: Any = (lambda s, k=key: s.values[k]) if not value_range.choice else None
        if value_range.choice:
            # The base's own value need not be one of the choices.
            base = plan.values_of_base()[key]
            choices = [*value_range.choice, *([] if base in value_range.choice else [base])]
            axis.set_xticks(range(len(choices)), [str(c) for c in choices])
            x = lambda s, k=key, c=choices: c.index(s.values[k])  # noqa: E731
        _draw_points(axis, plan, x, lambda s: s.objectives[0])
        axis.set_xlabel(key)
        axis.set_ylabel(_name(next(iter(search.objectives))))
        if value_range.log_uniform:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.xaxis.set_minor_formatter(NullFormatter())
    if search.single:
        _draw_history(axes[-1], plan)
    else:
        _draw_front(axes[-1], plan)
    handles, labels = axes[-1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5)
    title = f"{plan.title}, {len(plan.finished)} suggestions; validation scenes"
    figure.suptitle(title)
    return figure


def _name(objective: str) -> str:
    kind, _, metric = objective.partition("_")
    return f"validation {METRICS[metric].heading}" if kind == "val" else objective.replace("_", " ")


def _draw_points(axis: Any, plan: SearchPlan, x: Any, y: Any) -> None:
    """Draw every suggestion with a result; the base and the best have marks of their own."""
    best = {suggestion.index for suggestion in plan.best}

    def style(suggestion: Suggestion) -> tuple[str, str, str, int]:
        if suggestion.index == 0:
            return "default", DEFAULT, "D", 40
        if suggestion.index in best:
            return "best" if plan.search.single else "front", BEST, "*", 110
        if suggestion.state == "stopped":
            return "stopped early", STOPPED, "x", 22
        return "trained", OTHERS, "o", 16

    groups: dict[tuple[str, str, str, int], list[Suggestion]] = {}
    for suggestion in plan.suggestions:
        if suggestion.objectives is not None:
            groups.setdefault(style(suggestion), []).append(suggestion)
    for (label, colour, marker, size), suggestions in groups.items():
        axis.scatter(
            [x(s) for s in suggestions],
            [y(s) for s in suggestions],
            c=colour,
            marker=marker,
            s=size,
            label=label,
            zorder=3 if label in ("default", "best", "front") else 2,
        )


def _draw_history(axis: Any, plan: SearchPlan) -> None:
    (name, mode) = next(iter(plan.search.objectives.items()))
    _draw_points(axis, plan, lambda s: s.index, lambda s: s.objectives[0])
    finished = [one for one in plan.suggestions if one.objectives is not None]
    best = np.maximum if mode == "max" else np.minimum
    values = best.accumulate([one.objectives[0] for one in finished if one.objectives])
    axis.step(
        [one.index for one in finished], values, where="post", color="black", label="best so far"
    )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("suggestion")
    axis.set_ylabel(_name(name))


def _draw_front(axis: Any, plan: SearchPlan) -> None:
    first, second = plan.search.objectives
    _draw_points(axis, plan, lambda s: s.objectives[1], lambda s: s.objectives[0])
    points = sorted((one.objectives[1], one.objectives[0]) for one in plan.best if one.objectives)
    axis.plot(*zip(*points, strict=True), color=BEST, linewidth=1)
    if second in COSTS:
        axis.xaxis.set_major_formatter(EngFormatter())
    axis.set_xlabel(_name(second))
    axis.set_ylabel(_name(first))
