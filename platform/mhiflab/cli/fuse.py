"""The command `fuse`: a trained network on two files."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.cli.options import (
    BandsAxis,
    FullScale,
    LabOption,
    NoData,
    Wavelengths,
    grid_nm,
    named_by_option,
)
from mhiflab.console import out
from mhiflab.paths import DEFAULT_LAB, Lab, check_targets

if TYPE_CHECKING:
    from feinfn.data.images import Image
    from feinfn.inference.apply import Trained
    from feinfn.inference.inputs import FusionImages


@named_by_option(memory_mib="--memory", upsampling="--upsampling")
def fuse(
    hsi: Annotated[
        Path,
        typer.Option(
            help="LR-HSI: .mat, .npy, .npz, .h5, ENVI, GeoTIFF or a folder of bands.",
        ),
    ],
    msi: Annotated[
        Path,
        typer.Option(
            help="MSI of the same scene, a whole number (2 or more) finer; its bands are ordered "
            "by names, colours or wavelengths in the file, else taken in the order of the "
            "network's protocol (msi_order: B, G, R for cave_x4), which is printed."
        ),
    ],
    fused: Annotated[
        Path, typer.Option("--out", help="Fused HSI: .mat, .npy, .npz, .h5, .tif or .hdr.")
    ],
    run: Annotated[
        str, typer.Option(help="Run key of a recorded run, or its first digits.", metavar="KEY")
    ] = "",
    weights: Annotated[
        Path | None, typer.Option(help="Use a .safetensors file or a model's folder instead.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="Memory for fusing, beyond the images.", metavar="MIB")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="Draw the errors against this HSI of the output's shape.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Array inside the LR-HSI's file.")] = None,
    msi_key: Annotated[str | None, typer.Option(help="Array inside the MSI's file.")] = None,
    reference_key: Annotated[
        str | None, typer.Option(help="Array inside the reference's file.")
    ] = None,
    full_scale: FullScale = None,
    msi_full_scale: Annotated[
        float | None,
        typer.Option(help="The same for the MSI; by default for one of the same integer type."),
    ] = None,
    reference_full_scale: Annotated[
        float | None, typer.Option(help="The same for the reference, with the same default.")
    ] = None,
    bands_axis: BandsAxis = None,
    no_data: NoData = None,
    wavelengths: Wavelengths = None,
    msi_bands: Annotated[
        str | None,
        typer.Option(help="Bands of the MSI's file in the network's order, as 3,2,1."),
    ] = None,
    upsampling: Annotated[
        str | None, typer.Option(help="bicubic, bilinear or nearest, if the weights lie alone.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda on a machine with a GPU.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    lab: LabOption = DEFAULT_LAB,
) -> None:
    """Fuse two files with a trained network, and draw the result as a PNG beside it.

    Axes are bands, rows, columns (in .mat files rows, columns, bands); numbers are floats with peak
    1, or integers of which the file or --full-scale says which one means 1. The LR-HSI is upsampled
    as the protocol says that the network was trained under. In Python: `feinfn.fuse_files`.
    """
    from feinfn.data.export import check_written, written_files
    from feinfn.data.readers.array import Options
    from feinfn.inference.apply import fuse_images
    from feinfn.inference.inputs import read_images
    from mhiflab.render.fused import write_fusion

    check_written(fused)
    outputs, inputs = (
        (*written_files(fused), fused.with_suffix(".png")),
        (hsi, msi, reference, weights),
    )
    check_targets(outputs, filter(None, inputs), force)
    trained, run_key = _trained(run, weights, upsampling, device, memory, Lab(lab))
    told = Options(key=key, full_scale=full_scale, bands_axis=bands_axis, no_data=no_data)
    msi_told = replace(told, key=msi_key, full_scale=msi_full_scale, prefix="msi-")
    reference_told = replace(
        told, key=reference_key, full_scale=reference_full_scale, prefix="reference-"
    )
    images = read_images(
        (hsi, replace(told, wavelengths_nm=grid_nm(wavelengths))),
        (msi, msi_told),
        (reference, reference_told) if reference else None,
        trained.bands,
        trained.protocol,
        _numbers(msi_bands),
    )
    for note in _notes(trained, upsampling, images):
        out.print(escape(note), soft_wrap=True)
    _warn_of_other_bands(images.hsi, trained)
    rows, columns = images.msi.values_SHW.shape[1:]
    bands = len(images.hsi.values_SHW)
    with out.status(f"Fusing {bands} bands of {rows}x{columns} pixels"):
        fused_SHW = fuse_images(trained, images)
    picture = write_fusion(fused, fused_SHW, images, trained, run_key)
    out.print(f"Fused    {escape(str(fused))}", soft_wrap=True)
    out.print(f"Picture  {escape(str(picture))}", soft_wrap=True)


def _numbers(text: str | None) -> list[int] | None:
    """Return the numbers of a list as 3,2,1."""
    if text is None:
        return None
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UserError(f"--msi-bands: found {text!r}, expected numbers as 3,2,1") from None


def _trained(
    run: str,
    weights: Path | None,
    upsampling: str | None,
    device: str,
    memory_mib: float | None,
    lab: Lab,
) -> "tuple[Trained, str]":
    """Return the network of a run with its key, or of weights without one."""
    from feinfn.inference.apply import load_trained

    if bool(run) == (weights is not None):
        raise UserError(
            f"--run, --weights: found {'both' if run else 'neither'}, expected one of them; name a "
            "recorded run or a file"
        )
    if weights is not None:
        return load_trained(weights, upsampling, device, memory_mib), ""
    from mhiflab.record.finished import chosen_runs
    from mhiflab.record.store import recorded_store

    (recorded,) = chosen_runs(recorded_store(lab), [run])
    with recorded.packaged_model() as folder:
        return load_trained(folder, upsampling, device, memory_mib), recorded.key


def _warn_of_other_bands(hsi: "Image", trained: "Trained") -> None:
    """Warn if the LR-HSI's bands lie elsewhere than those of the network's training."""
    from feinfn.inference.inputs import band_mismatch

    if hsi.wavelengths_nm is None or not trained.wavelengths_nm:
        return
    if difference := band_mismatch(hsi.wavelengths_nm, trained.wavelengths_nm):
        out.print(f"[yellow]{escape(f'{hsi.path}: {difference}')}[/]", soft_wrap=True)


def _notes(trained: "Trained", upsampling: str | None, images: "FusionImages") -> list[str]:
    """Return notes on a fusion that its result does not show, one sentence each."""
    from feinfn.data.images import little_used

    protocol = trained.protocol
    bands = "in the order of the network's training, which its weights alone do not say"
    if protocol:
        bands = f"as {', '.join(protocol.msi_order)} (protocol {protocol.name})"
    if images.msi_order:
        bands += f": {images.msi_order}"
    why = (
        "as was asked"
        if upsampling
        else "assumed, because the weights do not say it (--upsampling)"
    )
    if protocol and not upsampling:
        why = f"as protocol {protocol.name} says"
    model: Any = trained.model
    config, notes = model.config, [f"LR-HSI upsampled {trained.upsampling}, {why}"]
    if config.needs_sensor:
        sensor = f"for the sensor of protocol {model.sensor.protocol.name}"
        if config.base != "lms":
            notes = [f"Base {config.base}, {sensor}"]
        if config.consistency != "none":
            what = "MSI" if config.consistency == "msi" else "MSI and LR-HSI"
            notes.append(f"Projected on the {what}, {sensor}")
    notes.append(f"MSI bands taken {bands}")
    ratio = images.msi.values_SHW.shape[1] // images.hsi.values_SHW.shape[1]
    if protocol and ratio != protocol.ratio:
        notes.append(f"Trained at ratio {protocol.ratio}, used at ratio {ratio}")
    given = [x for x in (images.hsi, images.msi, images.reference) if x]
    notes += [f"{image.path}: {note}" for image in given for note in image.notes]
    shares = ((image.path, float(image.values_SHW.max())) for image in given)
    return notes + [f"{path}: {doubt}" for path, share in shares for doubt in little_used(share)]
