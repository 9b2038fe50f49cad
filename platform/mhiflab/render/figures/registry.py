"""The kinds of figures by name, and writing one with the numbers behind it."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from feinfn.errors import UserError, nearest
from feinfn.files import write_bytes
from mhiflab.paths import check_targets
from mhiflab.render.figures.images.errors import ErrorsOptions, draw_errors
from mhiflab.render.figures.images.fused import FusedOptions, draw_fused
from mhiflab.render.figures.images.spectra import SpectraOptions, draw_spectra
from mhiflab.render.figures.kind import Drawn, Kind
from mhiflab.render.figures.network.change import ChangeOptions, draw_change
from mhiflab.render.figures.network.gabor import GaborOptions, draw_gabor
from mhiflab.render.figures.network.latent import LatentOptions, draw_latent
from mhiflab.render.figures.network.response import ResponseOptions, draw_response
from mhiflab.render.figures.style import mark, rendered
from mhiflab.render.figures.training.cost import CostOptions, draw_cost
from mhiflab.render.figures.training.curves import CurvesOptions, draw_curves
from mhiflab.render.runs import Recorded
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


def find_kind(name: str) -> Kind:
    """Return a kind of figure; raise `UserError` for an unknown name."""
    if name not in KINDS:
        raise UserError(
            f"figure kind: found {name!r}, {nearest(name, KINDS)}expected one of "
            + ", ".join(KINDS)
        )
    return KINDS[name]


def draw(
    kind: str,
    options: dict[str, Any],
    recorded: Recorded,
    folder: Path,
    stem: str,
    formats: Sequence[str] = FORMATS,
) -> list[Path]:
    """Draw a figure from recorded artifacts; return the paths of `stem`.png, .pdf and .csv.

    The same records give the same bytes. Numbers are written with six digits, because networks
    are computed anew and their last bits are the machine's. Nothing is written unless all could be
    drawn, and no other format of an older figure stays beside it. Raises `UserError` for an unknown
    kind or option, where the records do not hold what the kind needs, and for files that cannot be
    written.
    """
    every = {suffix: folder / f"{stem}.{suffix}" for suffix in (*FORMATS, "csv")}
    check_targets(every.values())
    drawn = drawn_of(kind, options, recorded)
    contents = {suffix: rendered(drawn.figure, suffix) for suffix in formats}
    table = drawn.numbers.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    contents["csv"] = table.encode()
    for suffix, path in every.items():
        if suffix in contents:
            write_bytes(path, contents[suffix])
        else:
            path.unlink(missing_ok=True)
    return [every[suffix] for suffix in contents]


def drawn_of(kind: str, options: dict[str, Any], recorded: Recorded) -> Drawn:
    """Return a figure drawn from recorded artifacts, as `draw` writes it."""
    found = find_kind(kind)
    given = build(found.options, options, f"figure {kind}: options")
    with _one_thread():
        drawn = found.draw(recorded, given)
    if not recorded.plan.smoke:
        return drawn
    mark(drawn.figure, MARK)
    return Drawn(drawn.figure, drawn.numbers.assign(form="smoke"))


def draw_each(
    kinds: Iterable[str],
    options: dict[str, Any],
    recorded: Recorded,
    folder: Path,
    formats: Sequence[str] = FORMATS,
) -> tuple[dict[str, list[Path]], dict[str, UserError]]:
    """Draw several kinds, each under its name; return their files, and why the others have none."""
    drawn: dict[str, list[Path]] = {}
    left: dict[str, UserError] = {}
    for kind in kinds:
        try:
            drawn[kind] = draw(kind, options, recorded, folder, kind, formats)
        except UserError as error:
            left[kind] = error
    return drawn, left


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let sums be taken in one order, however many cores there are."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
