"""Differences between recorded runs: specs, code, data, metrics and learning curves.

The first run is the baseline. Everything comes from the record; scenes are not read.
"""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from feinfn.errors import UserError, nearest
from feinfn.methods.configs import CLASSICAL_NAMES
from feinfn.metrics.label import CONVENTION, LABELS
from mhiflab.grid import Cell, Grid, texts
from mhiflab.record import artifacts, tag
from mhiflab.record.finished import RecordedRun
from mhiflab.render.compare_page import Section
from mhiflab.render.figures.style import COLOURS, figure_bytes
from mhiflab.render.figures.training.curves import curves_figure
from mhiflab.render.statistics.comparison import Comparison, compare_methods

AT_MOST = len(COLOURS)
"""Largest number of runs, each with a colour of its own in one figure."""

PROTOCOL, PROTOCOL_HASH = "mhiflab.protocol", "mhiflab.protocol_hash"

CONVENTION_TAG = "mhiflab.convention"

NONE = "–"


def differing_names(values: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names whose values differ or are missing in one of the mappings."""
    names = dict.fromkeys(name for mapping in values for name in mapping)
    return [
        name
        for name in names
        if any(name not in mapping or mapping[name] != values[0].get(name) for mapping in values)
    ]


def difference_grid(column: str, values_by_name: Mapping[str, Mapping[str, Any]]) -> Grid:
    """Return a table of the values in which mappings differ, one column for each mapping."""
    values = list(values_by_name.values())
    rows = [
        [Cell(name, "key"), *(Cell(_shown(one, name)) for one in values)]
        for name in differing_names(values)
    ]
    return Grid([column, *values_by_name], rows)


def _shown(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name, NONE)
    return value if isinstance(value, str) else json.dumps(value)


def _difference(title: str, column: str, runs: Sequence[RecordedRun], part: str) -> Section:
    """Return a section on the differences in one part of the records."""
    grid = difference_grid(column, {run.name: getattr(run, part) for run in runs})
    return Section(title, grids=[grid]) if grid.rows else Section(title, ["Nothing differs."])


def _overview(runs: Sequence[RecordedRun]) -> Section:
    header = ["run", "key", "study", "case", "protocol", "parameters", "best epoch", "seconds"]
    rows = []
    for run in runs:
        numbers = (
            run.provenance.get(k, NONE) for k in ("parameters", "best_epoch", "wall_seconds")
        )
        named = (run.tags.get(k, NONE) for k in (tag.KEY, tag.STUDY, tag.CASE, PROTOCOL))
        rows.append(texts(run.name, *named, *map(str, numbers)))
    sentences = [f"The baseline is {runs[0].name}."]
    if seeds := _other_seeds(runs):
        sentences.append(
            f"{', '.join([runs[0].name, *seeds])} are seeds of the same case: what differs between "
            "their results is chance in training."
        )
    return Section("Runs", sentences, _mixed(runs), [Grid(header, rows)])


def _other_seeds(runs: Sequence[RecordedRun]) -> list[str]:
    """Return the names of the runs that differ from the first only in the seed."""
    base, *others = runs
    return [
        run.name
        for run in others
        if differing_names([base.spec, run.spec]) == ["seed"]
        and base.data["fingerprint"] == run.data["fingerprint"]
    ]


def _mixed(runs: Sequence[RecordedRun]) -> list[str]:
    """Return a caution if the runs' protocols differ."""
    names_by_hash = {
        run.tags.get(PROTOCOL_HASH, NONE): run.tags.get(PROTOCOL, NONE) for run in runs
    }
    if len(names_by_hash) == 1:
        return []
    protocols = ", ".join(f"{name} ({digits[:8]})" for digits, name in names_by_hash.items())
    return [
        f"The protocols differ: {protocols}. Differences in metrics are then not those of the "
        "networks alone, and must not be read as such."
    ]


def _convention(runs: Sequence[RecordedRun], requested: str | None) -> str | None:
    """Return the convention to compare in; None if the runs share no usual one."""
    shared = set.intersection(*(set(run.images["convention"]) for run in runs))
    if requested is not None and requested not in shared:
        raise UserError(
            f"--convention: found {requested!r}, {nearest(requested, shared)}expected one that all "
            f"runs were evaluated in: {', '.join(sorted(shared)) or 'there is none'}"
        )
    usual = [name for name in (CONVENTION, artifacts.WITHOUT_REFERENCE) if name in shared]
    return requested or next(iter(usual), None)


def _paired(runs: Sequence[RecordedRun], convention: str) -> tuple[pd.DataFrame, list[str]]:
    """Return the metrics of the images that all runs share, and sentences on those left out.

    Rows have scene, method (the run's name), seed (1, because each run is one training; NaN if
    nothing is trained) and metrics.
    """
    metrics = list(artifacts.metrics_of(convention))
    rows = pd.concat([run.images.assign(run=run.name) for run in runs])
    rows = rows[rows["convention"] == convention]
    fused = rows[rows["method"] == artifacts.FUSED].sort_values("scene", kind="stable")
    counts = fused.groupby("scene").size()
    unpaired, shared = counts.index[counts < len(runs)], counts.index[counts == len(runs)]
    sentences = []
    if len(unpaired):
        sentences.append(f"Not paired, because some runs lack them: {', '.join(unpaired)}.")
    if len({run.tags.get(PROTOCOL_HASH) for run in runs}) == 1:
        # The same pixels and protocol give the same upsampled image.
        upsampled = rows[rows["method"] == artifacts.UPSAMPLED].set_index("scene")
        first = upsampled.loc[upsampled["run"] == runs[0].name, metrics].reindex(upsampled.index)
        distances = abs(upsampled[metrics] - first).div(abs(first).clip(lower=1)).max(axis=1)
        changed = shared.intersection(distances.index[distances > artifacts.SAME_IMAGE])
        shared = shared.difference(changed)
        if len(changed):
            sentences.append(f"Not paired, because their pixels differ: {', '.join(changed)}.")
    frame = fused[fused["scene"].isin(shared)]
    untrained = [run.name for run in runs if run.spec.get("model.name") in CLASSICAL_NAMES]
    seeds = np.where(frame["run"].isin(untrained), math.nan, 1.0)
    return frame.assign(method=frame["run"], seed=seeds), sentences


def _metrics(runs: Sequence[RecordedRun], requested: str | None) -> Section:
    title = "Metrics"
    convention = _convention(runs, requested)
    if convention is None:
        return Section(
            title, cautions=["The runs have no metric convention in common: nothing is compared."]
        )
    frame, cautions = _paired(runs, convention)
    conventions = list(dict.fromkeys(run.tags.get(CONVENTION_TAG, NONE) for run in runs))
    if len(conventions) > 1:
        cautions.append(
            f"The runs' own metric conventions differ: {', '.join(conventions)}. Here all are "
            f"compared in {convention} alone."
        )
    if frame.empty:
        return Section(title, cautions=[*cautions, "The runs share no test image."])
    metrics, names = list(artifacts.metrics_of(convention)), [run.name for run in runs]
    comparisons = compare_methods(frame, metrics, names, baseline=names[0])
    warnings = [text for one in comparisons for text in one.warnings()]
    sentences = [f"Convention {convention}. Differences are those to {names[0]}."]
    chance = _other_seeds(runs)
    verdicts = [one.verdict() for one in comparisons if one.shown and one.method not in chance]
    sentences += verdicts or ["No difference was shown."]
    heads = [f"{LABELS[m].name}{LABELS[m].words}" for m in metrics]
    interval = f"{100 * comparisons[0].level:g}% interval"
    p_value = f"p (Holm over {comparisons[0].family})"
    differences = Grid(
        ["run", "metric", "difference", interval, p_value, "shown"],
        [_line(one, one.method in chance) for one in comparisons],
        "Mean differences over images",
    )
    images = Grid(["image", "run", *heads], _images(frame, names, metrics), "Images")
    return Section(title, sentences, [*cautions, *dict.fromkeys(warnings)], [differences, images])


def _line(comparison: Comparison, chance: bool) -> list[Cell]:
    metric = LABELS[comparison.metric]
    ends = [
        f"{x:+z.{metric.digits}f}"
        for x in (comparison.effect.mean, comparison.low, comparison.high)
    ]
    within = NONE if math.isnan(comparison.low) else f"{ends[1]} to {ends[2]}"
    verdict = ("better" if comparison.better else "worse") if comparison.shown else "no"
    if chance:
        verdict = "chance in training"
    return [
        *texts(comparison.method, metric.name + metric.words),
        Cell(ends[0], value=comparison.effect.mean),
        Cell(within, value=comparison.low),
        Cell(f"{comparison.p_holm:.3f}", value=comparison.p_holm),
        Cell(verdict),
    ]


def _images(frame: pd.DataFrame, names: Sequence[str], metrics: Sequence[str]) -> list[list[Cell]]:
    """Return the metrics of every image by run, with the difference to the first run."""
    table = frame.set_index(["scene", "method"])
    rows = []
    for scene in dict.fromkeys(frame["scene"]):
        for name in names:
            cells = texts(scene, name)
            for metric in metrics:
                digits = LABELS[metric].digits
                value, base = (table.loc[(scene, run), metric] for run in (name, names[0]))
                difference = "" if name == names[0] else f"({value - base:+z.{digits}f})"
                cells.append(Cell(f"{value:.{digits}f}", "", difference, value))
            rows.append(cells)
    return rows


def _curves(runs: Sequence[RecordedRun]) -> Section:
    title = "Learning curves"
    curves = {run.name: run.history("val_psnr") for run in runs}
    rows = [
        {"method": run.name, "seed": run.tags[tag.SEED], "step": step, "value": value}
        for run in runs
        for step, value in sorted(curves[run.name].items())
    ]
    curveless = [name for name, curve in curves.items() if not curve]
    sentences = [f"No validation PSNR on record: {', '.join(curveless)}."] if curveless else []
    if not rows:
        return Section(title, sentences)
    ends = [
        f"{name}: best validation PSNR {max(curve.values()):.2f} dB, after epoch "
        f"{max(curve, key=lambda step: curve[step])}."
        for name, curve in curves.items()
        if curve
    ]
    figure = curves_figure(pd.DataFrame(rows), x="epoch")
    return Section(title, [*ends, *sentences], png=figure_bytes(figure))


def compare_runs(runs: Sequence[RecordedRun], convention: str | None = None) -> list[Section]:
    """Return the differences between runs as sections; the first run is the baseline.

    Raises `UserError` if there are fewer than two or too many runs, if a run is given twice, or if
    a run was not tested, or not evaluated in the convention.
    """
    keys = [run.key for run in runs]
    if not 2 <= len(runs) <= AT_MOST:
        shown = f" ({', '.join(key[:8] for key in keys)})" if keys else ""
        raise UserError(
            f"compare: found {len(runs)} finished run{'s' * (len(runs) != 1)}{shown}, expected 2 "
            f"to {AT_MOST}; choose {'more' if len(keys) < 2 else 'fewer'}"
        )
    if repeated := [key for key in keys if keys.count(key) > 1]:
        raise UserError(f"compare: found run {repeated[0]} twice, expected each once; name another")
    for run in runs:
        if not run.has(artifacts.IMAGES_FILE):
            raise UserError(
                f"run {run.key}: found no metrics of test images with it, expected a run that was "
                "tested; choose another"
            )
    return [
        _overview(runs),
        _difference("Specification", "setting", runs, "spec"),
        _difference("Code and machine", "what", runs, "code"),
        _difference("Data", "what", runs, "data"),
        _metrics(runs, convention),
        _curves(runs),
    ]
