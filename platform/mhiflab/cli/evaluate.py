"""The command `evaluate`: metric conventions side by side."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from mhiflab.cli.options import named_by_option
from mhiflab.console import out


@named_by_option(convention="--convention")
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
        list[str] | None,
        typer.Option(help="Metric convention (default: all, side by side). Repeatable."),
    ] = None,
    key: Annotated[str | None, typer.Option(help="Array inside the files.")] = None,
    reference_key: Annotated[
        str | None, typer.Option(help="Array inside the reference's file, if it differs.")
    ] = None,
    mat: Annotated[
        Path | None, typer.Option(help="Also write both images for the MATLAB package.")
    ] = None,
    map_: Annotated[
        Path | None, typer.Option("--map", help="Also write a PNG of errors and spectral angles.")
    ] = None,
    csv_: Annotated[
        Path | None, typer.Option("--csv", help="Also write all digits as CSV.")
    ] = None,
) -> None:
    """Score a fused image against its reference under every metric convention in use.

    The same pair differs by decibels between the definitions behind printed tables; the second
    number of a cell is the difference to the first column. Axes are bands, rows, columns (in .mat
    files rows, columns, bands); numbers are integers of 8 or 16 bits, or floats with peak 1.
    """
    from feinfn.files import write_atomic
    from feinfn.inference.scores import score_files
    from mhiflab.render.fused import convention_grid, write_csv, write_map, write_mat
    from mhiflab.render.metrics import METRICS

    scores = score_files(fused, reference, ratio, convention or (), key, reference_key or key)
    out.print(convention_grid(scores.values))
    if scores.left_out:
        names = ", ".join(METRICS[index].name for index in scores.left_out)
        out.print(f"Left out, their windows are larger than the image: {names}")
    for rule in scores.conventions:
        out.print(f"[bold]{rule.name}[/]: {escape(rule.about)} Source: {escape(rule.source)}.")
    first = scores.conventions[0].name
    if csv_:
        write_atomic(csv_, lambda path: write_csv(path, scores.values))
    if mat:
        write_atomic(mat, lambda path: write_mat(path, scores.fused, scores.reference, ratio))
    if map_:
        write_atomic(map_, lambda path: write_map(path, scores.fused, scores.maps(), first))
    for path in filter(None, (csv_, mat, map_)):
        out.print(f"Written {escape(str(path))}", soft_wrap=True)
