"""Kinds of figures by name; write a figure with the numbers behind it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from feinfn.errors import UserError, nearest
from feinfn.files import write_bytes
from mhiflab.paths import check_targets
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.images.errors import ErrorsOptions, draw_errors
from mhiflab.render.figures.images.fused import FusedOptions, draw_fused
from mhiflab.render.figures.images.spectra import SpectraOptions, draw_spectra
from mhiflab.render.figures.kind import Drawing, Kind
from mhiflab.render.figures.network.change import ChangeOptions, draw_change
from mhiflab.render.figures.network.gabor import GaborOptions, draw_gabor
from mhiflab.render.figures.network.latent import LatentOptions, draw_latent
from mhiflab.render.figures.network.response import ResponseOptions, draw_response
from mhiflab.render.figures.style import add_footer, figure_bytes
from mhiflab.render.figures.training.cost import CostOptions, draw_cost
from mhiflab.render.figures.training.curves import CurvesOptions, draw_curves
from mhiflab.study.smoke import MARK
from mhiflab.study.yaml_values import build

KINDS: dict[str, Kind] = {
    "fused": Kind(FusedOptions, draw_fused),
    "spectra": Kind(SpectraOptions, draw_spectra),
    "curves": Kind(CurvesOptions, draw_curves),
    "cost": Kind(CostOptions, draw_cost),
    "latent": Kind(LatentOptions, draw_latent),
    "gabor": Kind(GaborOptions, draw_gabor),
    "response": Kind(ResponseOptions, draw_response),
    "change": Kind(ChangeOptions, draw_change),
    "errors": Kind(ErrorsOptions, draw_errors),
}

FORMATS = ("png", "pdf")
"""Formats of a figure."""


def find_kind(name: str) -> Kind:
    """Return a kind of figure; raise `UserError` if the name is unknown."""
    if name not in KINDS:
        raise UserError(
            f"figure kind: found {name!r}, {nearest(name, KINDS)}expected one of "
            + ", ".join(KINDS)
        )
    return KINDS[name]


def draw(
    kind: str,
    options: dict[str, Any],
    plan: Plan,
    folder: Path,
    stem: str,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Draw a figure from recorded artifacts; return the paths of `stem`.png, .pdf and .csv.

    The same records give the same bytes. Numbers are written with six digits, because networks are
    computed again and their last bits depend on the machine. Files are written only after
    everything is drawn, and other formats of an older figure are removed. Raises `UserError` if the
    kind or an option is unknown, if the records lack the data, or if a file cannot be written.
    """
    paths = {suffix: folder / f"{stem}.{suffix}" for suffix in (*FORMATS, "csv")}
    check_targets(paths.values())
    drawing = make_drawing(kind, options, plan)
    contents = {suffix: figure_bytes(drawing.figure, suffix) for suffix in formats}
    table = drawing.numbers.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    contents["csv"] = table.encode()
    for suffix, path in paths.items():
        if suffix in contents:
            write_bytes(path, contents[suffix])
        else:
            path.unlink(missing_ok=True)
    return [paths[suffix] for suffix in contents]


def make_drawing(kind: str, options: dict[str, Any], plan: Plan) -> Drawing:
    """Return a figure and its numbers from recorded artifacts, as `draw` writes them."""
    figure_kind = find_kind(kind)
    kind_options = build(figure_kind.options, options, f"figure {kind}: options")
    with _one_thread():
        drawing = figure_kind.draw(plan, kind_options)
    if not plan.smoke:
        return drawing
    add_footer(drawing.figure, MARK)
    return Drawing(drawing.figure, drawing.numbers.assign(form="smoke"))


def draw_each(
    kinds: Iterable[str],
    options: dict[str, Any],
    plan: Plan,
    folder: Path,
    formats: Sequence[str] = FORMATS,
) -> tuple[dict[str, list[Path]], dict[str, UserError]]:
    """Draw several kinds, each under its name; return files and errors by kind."""
    files: dict[str, list[Path]] = {}
    undrawn: dict[str, UserError] = {}
    for kind in kinds:
        try:
            files[kind] = draw(kind, options, plan, folder, kind, formats)
        except UserError as error:
            undrawn[kind] = error
    return files, undrawn


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread, so that the order of sums does not depend on the number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
