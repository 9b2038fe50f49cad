"""The `evaluate` command: conventions side by side; heavy libraries are imported when it runs."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out


def evaluate(
    fused: Annotated[
        Path,
        typer.Option(
            help="Fused image: .mat, .npy, .npz, .h5, ENVI, GeoTIFF or a folder of bands."
        ),
    ],
    reference: Annotated[Path, typer.Option(help="Its reference, of the same shape.")],
    ratio: Annotated[int, typer.Option(min=1, help="Ratio of the protocol, for ERGAS.")] = 4,
    convention: Annotated[
        list[str] | None, typer.Option(help="One or more; default: all, side by side.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Array inside the files.")] = None,
    reference_key: Annotated[
        str | None, typer.Option(help="Array inside the reference's file, where it differs.")
    ] = None,
    mat: Annotated[Path | None, typer.Option(help="Write both for the MATLAB package.")] = None,
    map_: Annotated[
        Path | None, typer.Option("--map", help="Write a PNG of errors and spectral angles.")
    ] = None,
    csv_: Annotated[Path | None, typer.Option("--csv", help="Write all digits as CSV.")] = None,
) -> None:
    """Score a fused image against its reference under every metric convention in use.

    The same pair differs by decibels between the definitions behind printed tables; the second line
    of a cell is the difference to the first column. Axes are bands, rows, columns (in .mat files
    rows, columns, bands); numbers are integers of 8 or 16 bits, or floats with peak 1.
    """
    import numpy as np
    import torch

    from feinfn.data.images import read_cube
    from feinfn.files import write_atomic
    from feinfn.metrics.conventions import CONVENTIONS, find_convention
    from feinfn.metrics.evaluation import ALL_INDICES, compare, maps, smallest_px
    from mhiflab.render.evaluation import LABELS, comparison_table, write_csv, write_map, write_mat

    names = list(dict.fromkeys(convention or CONVENTIONS))
    rules = [find_convention(name) for name in names]
    sr, gt = read_cube(fused, key), read_cube(reference, reference_key or key)
    if sr.shape != gt.shape:
        raise UserError(
            f"{fused}: found shape {sr.shape} [bands, rows, columns], expected {gt.shape}, that of "
            f"{reference}; axes are [rows, columns, bands] in .mat files alone"
        )
    a, b = (torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64)) for x in (sr, gt))
    side = min(gt.shape[1:])
    needs = {index: max(smallest_px(index, name) for name in names) for index in ALL_INDICES}
    indices = [index for index, least in needs.items() if least <= side]
    found = compare(a, b, ratio, names, indices)

    out.print(comparison_table(found))
    if left := [LABELS[index][0] for index in ALL_INDICES if index not in indices]:
        out.print(f"Left out, their windows are larger than the image: {', '.join(left)}")
    for rule in rules:
        out.print(f"[bold]{rule.name}[/]: {escape(rule.about)} Source: {escape(rule.source)}.")
    if csv_:
        write_atomic(csv_, lambda path: write_csv(path, found))
    if mat:
        write_atomic(mat, lambda path: write_mat(path, sr, gt, ratio))
    if map_:
        drawn = maps(a, b, names[0])
        write_atomic(map_, lambda path: write_map(path, sr, drawn, names[0]))
    for path in filter(None, (csv_, mat, map_)):
        out.print(f"Written {escape(str(path))}", soft_wrap=True)
