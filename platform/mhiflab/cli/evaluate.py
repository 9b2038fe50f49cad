"""The command `evaluate`: metric conventions side by side."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from mhiflab.cli.options import BandsAxis, FullScale, NoData, named_by_option
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
    full_scale: FullScale = None,
    reference_full_scale: Annotated[
        float | None,
        typer.Option(help="The same for the reference; by default for one of the same type."),
    ] = None,
    bands_axis: BandsAxis = None,
    no_data: NoData = None,
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
    files rows, columns, bands); numbers are floats with peak 1, or integers of which the file or
    --full-scale says which one means 1.
    """
    from feinfn.data.readers.array import Options
    from feinfn.files import write_atomic
    from feinfn.inference.scores import score_files
    from feinfn.metrics.label import LABELS
    from mhiflab.render.fused import convention_grid, write_csv, write_map, write_mat

    told = Options(key=key, full_scale=full_scale, bands_axis=bands_axis, no_data=no_data)
    reference_told = replace(
        told,
        key=reference_key or key,
        full_scale=reference_full_scale,
        prefix="reference-",
    )
    scores = score_files((fused, told), (reference, reference_told), ratio, convention or ())
    for note in scores.notes:
        out.print(escape(note), soft_wrap=True)
    out.print(convention_grid(scores.values))
    if gaps := scores.gaps():
        out.print(gaps)
    if scores.left_out:
        names = ", ".join(LABELS[index].name for index in scores.left_out)
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
