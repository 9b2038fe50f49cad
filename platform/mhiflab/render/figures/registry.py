"""Kinds of figures by name; write a figure with the numbers behind it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

from feinfn.errors import require_one_of
from feinfn.files import write_bytes
from mhiflab.paths import check_targets
from mhiflab.plan.plan import Plan
from mhiflab.render.figures.kind import Drawing, Kind
from mhiflab.render.figures.style import add_footer, figure_bytes
from mhiflab.study.smoke import MARK
from mhiflab.study.yaml_values import build

KINDS = {
    "fused": "images",
    "spectra": "images",
    "curves": "training",
    "cost": "training",
    "latent": "network",
    "gabor": "network",
    "response": "network",
    "change": "network",
    "errors": "images",
}
"""Kinds of figures by name, with their folders: `fused` is the class Fused of images/fused.py."""

FORMATS = ("png", "pdf")
"""Formats of a figure."""


def find_kind(name: str) -> type[Kind]:
    """Return a kind of figure; raise `UserError` if the name is unknown."""
    require_one_of("figure kind", name, KINDS)
    # Imported only if it is drawn: some kinds need torch, which takes seconds.
    module = import_module(f"mhiflab.render.figures.{KINDS[name]}.{name}")
    kind: type[Kind] = getattr(module, name.title())
    return kind


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
    figure, numbers = make_drawing(kind, options, plan)
    contents = {suffix: figure_bytes(figure, suffix) for suffix in formats}
    table = numbers.to_csv(index=False, lineterminator="\n", float_format="%.6g")
    contents["csv"] = table.encode()
    for suffix, path in paths.items():
        if suffix in contents:
            write_bytes(path, contents[suffix])
        else:
            path.unlink(missing_ok=True)
    return [paths[suffix] for suffix in contents]


def make_drawing(kind: str, options: dict[str, Any], plan: Plan) -> Drawing:
    """Return a figure and its numbers from recorded artifacts, as `draw` writes them."""
    figure_kind: Kind = build(find_kind(kind), options, f"figure {kind}: options")
    with _one_thread() if KINDS[kind] == "network" else nullcontext():
        figure, numbers = figure_kind.draw(plan)
    if plan.smoke:
        figure, numbers = add_footer(figure, MARK), numbers.assign(form="smoke")
    return figure, numbers


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, so that the order of sums does not depend on the machine's cores."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
