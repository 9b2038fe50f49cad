"""The `fuse` command: a trained network on two files; heavy libraries are imported when it runs."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.data_options import BandsAxis, FullScale, Wavelengths, grid_nm
from mhiflab.paths import HERE, Lab, check_targets
from mhiflab.study_cli import LabOption

if TYPE_CHECKING:
    from feinfn.data.images import Image
    from feinfn.inference.apply import Trained

NAME = "fused"


def fuse_command(
    hsi: Annotated[
        Path,
        typer.Option(
            help="LR-HSI: .mat, .npy, .npz, .h5, ENVI, GeoTIFF or a folder of bands.",
        ),
    ],
    msi: Annotated[
        Path,
        typer.Option(
            help="MSI of the same scene, a whole number (2 or more) finer; bands in the order of "
            "the network's protocol (msi_order: B, G, R for cave_x4), which is printed."
        ),
    ],
    fused: Annotated[Path, typer.Option("--out", help="Fused HSI: .mat, .npy, .npz or .h5.")],
    run: Annotated[
        str, typer.Option(help="Key of a recorded run, or its first digits.", metavar="KEY")
    ] = "",
    weights: Annotated[
        Path | None, typer.Option(help="Instead: a .safetensors file, or a model's folder.")
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
    wavelengths: Wavelengths = None,
    upsampling: Annotated[
        str | None, typer.Option(help="bicubic, bilinear or nearest, where weights lie alone.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, or cuda on a machine with a GPU.")] = "cpu",
    force: Annotated[bool, typer.Option("--force", help="Overwrite what is there.")] = False,
    lab: LabOption = HERE,
) -> None:
    """Fuse two files with a trained network, and draw what came out beside it as a PNG.

    Axes are bands, rows, columns (in .mat files rows, columns, bands); numbers are integers of 8 or
    16 bits, or floats with peak 1. The LR-HSI is upsampled as the protocol says that the network
    was trained under. In Python: `feinfn.apply.fuse_files`.
    """
    from feinfn.data.images import Image, check_written, write_image
    from feinfn.files import write_atomic
    from feinfn.inference.apply import fuse_images
    from feinfn.inference.inputs import band_mismatch, check_msi_order, read_companion, read_input
    from mhiflab.render.figures.images.quicklook import quick_look
    from mhiflab.render.figures.style import png

    picture = fused.with_suffix(".png")
    check_written(fused)
    check_targets((fused, picture), filter(None, (hsi, msi, reference, weights)), force)
    trained, run_key = _trained(run, weights, upsampling, device, Lab(lab))
    if memory is not None:
        with _as_option():
            trained.limit_memory(memory)
    hsi_bands, msi_bands = trained.bands
    a = read_input(hsi, hsi_bands, "LR-HSI", key, full_scale, bands_axis)
    own = (hsi, key, full_scale)
    b = read_companion(msi, msi_bands, "MSI", msi_key, msi_full_scale, bands_axis, own)
    check_msi_order(b, trained.protocol, msi)
    nm = grid_nm(wavelengths)
    nm = a.wavelengths_nm if nm is None else nm
    if nm is not None and len(nm) != hsi_bands:
        raise UserError(
            f"--wavelengths: found {len(nm)} of them, expected {hsi_bands}, one a band of {hsi}"
        )
    images, truth = [(hsi, a), (msi, b)], None
    if reference is not None:
        scale = reference_full_scale
        truth = read_companion(
            reference, hsi_bands, "reference", reference_key, scale, bands_axis, own
        )
        images.append((reference, truth))
        if truth.values_SHW.shape[1:] != b.values_SHW.shape[1:]:
            raise UserError(
                f"{reference}: found {truth.values_SHW.shape[1:]} rows and columns, expected "
                f"{b.values_SHW.shape[1:]}, as {msi} has; choose another reference"
            )
    for note in _notes(trained, upsampling, images):
        out.print(escape(note), soft_wrap=True)
    known_nm = trained.wavelengths_nm
    if nm is not None and known_nm and (told := band_mismatch(nm, known_nm)):
        out.print(f"[yellow]{escape(f'{hsi}: {told}')}[/]", soft_wrap=True)
    rows, columns = b.values_SHW.shape[1:]
    with out.status(f"Fusing {hsi_bands} bands of {rows}x{columns} pixels"), _as_option():
        fused_SHW = fuse_images(trained, a, b, f"{hsi} and {msi}")
    order = trained.protocol.msi_order if trained.protocol else ()
    origin = {
        "run_key": run_key,
        "weights_sha256": trained.weights_sha256,
        "protocol": trained.protocol.name if trained.protocol else "",
        "upsampling": trained.upsampling,
        "mhiflab_version": version("mhiflab"),
    }
    known = {name: text for name, text in origin.items() if text}
    true_SHW = truth.values_SHW if truth else None
    drawn = png(quick_look(a.values_SHW, b.values_SHW, fused_SHW, nm, order, true_SHW))

    def write_both(path: Path) -> None:
        path.write_bytes(drawn)
        write_image(fused, Image(fused_SHW, nm), NAME, known)

    # Both take their names last, one right after the other, so that a cut leaves none of them.
    write_atomic(picture, write_both)
    out.print(f"Fused    {escape(str(fused))}", soft_wrap=True)
    out.print(f"Picture  {escape(str(picture))}", soft_wrap=True)


@contextmanager
def _as_option() -> Iterator[None]:
    """Let errors name the option of what a network knows as its parameter."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace("memory_mib:", "--memory:")) from None


def _trained(
    run: str, weights: Path | None, upsampling: str | None, device: str, lab: Lab
) -> "tuple[Trained, str]":
    """Return the network of a run with its key, or of weights without one."""
    from feinfn.inference.apply import load_trained

    if bool(run) == (weights is not None):
        raise UserError(
            f"--run, --weights: found {'both' if run else 'neither'}, expected one of them; name a "
            "recorded run or a file"
        )
    if weights is not None:
        return load_trained(weights, upsampling, device), ""
    from mhiflab.record.finished import chosen_runs, packaged_model
    from mhiflab.record.store import KEY, recorded_store

    store = recorded_store(lab)
    (found,) = chosen_runs(store, [run])
    with packaged_model(store, found) as folder:
        return load_trained(folder, upsampling, device), found.data.tags[KEY]


def _notes(trained: "Trained", given: str | None, images: "list[tuple[Path, Image]]") -> list[str]:
    """Return what a user should know of this fusion and cannot see in it, one sentence each.

    The first two images are LR-HSI and MSI.
    """
    protocol = trained.protocol
    bands = "in the order of the network's training, which its weights alone do not say"
    if protocol:
        bands = f"as {', '.join(protocol.msi_order)} (protocol {protocol.name})"
    why = "as was asked" if given else "assumed, because the weights do not say it (--upsampling)"
    if protocol and not given:
        why = f"as protocol {protocol.name} says"
    notes = [f"LR-HSI upsampled {trained.upsampling}, {why}", f"MSI bands taken {bands}"]
    ratio = images[1][1].values_SHW.shape[1] // images[0][1].values_SHW.shape[1]
    if protocol and ratio != protocol.ratio:
        notes.append(f"Trained at ratio {protocol.ratio}, used at ratio {ratio}")
    for path, image in images:
        if (used := float(image.values_SHW.max())) < 1 / 8:
            notes.append(f"{path}: only {used:.1%} of its full scale is used; is that scale right?")
    return notes
