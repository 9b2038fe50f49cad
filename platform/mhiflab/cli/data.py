"""Commands under `data`: look at scenes, prepare, identify and export them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from feinfn.errors import UserError
from mhiflab.cli.options import (
    BandsAxis,
    CropValid,
    DataSet,
    FullScale,
    Key,
    NoData,
    Part,
    Published,
    Wavelengths,
    loaders,
    named_by_option,
    progress_of,
    read_options,
    say_notes,
)
from mhiflab.console import out
from mhiflab.grid import Cell, Grid, texts
from mhiflab.paths import check_targets

if TYPE_CHECKING:
    from feinfn.data.scene import Scene

data_app = typer.Typer(
    help="Look at scenes, prepare them once without loss, identify and export them.",
    no_args_is_help=True,
)


def _show_arrays(path: Path) -> None:
    """Print what a scene's file or folder is, and its arrays; a folder of scenes has none."""
    from feinfn.data.readers.formats import KINDS, open_file
    from feinfn.data.store import is_store, manifest

    if is_store(path):
        store = manifest(path)
        split = store["split"]["name"] if store["split"] else "none"
        out.print(escape(f"{path}: scene store of {store['set']}, split {split}"), soft_wrap=True)
        return
    try:
        file = open_file(path)
    except UserError:
        # The row of the scene says what is wrong.
        return
    rows = [
        texts(key, " x ".join(map(str, x.shape)), str(x.dtype)) for key, x in file.arrays.items()
    ]
    out.print(f"{escape(str(path))}: {escape(KINDS[file.kind])}", soft_wrap=True)
    out.print(Grid(("array", "shape", "type"), rows), "")


@data_app.command()
def inspect(
    path: Annotated[Path, typer.Argument(help="A scene, a folder of scenes, or a scene store.")],
    thumbnail: Annotated[
        Path | None, typer.Option(help="Write a pseudo-RGB picture of every scene to this PNG.")
    ] = None,
    published: Published = None,
    key: Key = None,
    bands_axis: BandsAxis = None,
    full_scale: FullScale = None,
    wavelengths: Wavelengths = None,
    no_data: NoData = None,
) -> None:
    """Show arrays, bands, values and problems of data, one row a scene.

    A file that cannot be read gets a row with the reason, and the exit code is 1.
    """
    from feinfn.data.images import contact_sheet, problems, small_picture

    if thumbnail and thumbnail.suffix.lower() != ".png":
        raise UserError(f"--thumbnail: found {str(thumbnail)!r}, expected a name ending in .png")
    _show_arrays(path)
    rows: list[list[Cell]] = []
    pictures, failed = [], 0
    loads = loaders(
        path, published, read_options(key, bands_axis, full_scale, wavelengths, no_data)
    )
    for name, (_, load) in loads.items():
        try:
            scene = load()
        except UserError as error:
            failed += 1
            rows.append([*texts(name, "", "", ""), Cell(str(error), "failed")])
            continue
        raw, nm, full_scale = scene.raw_SHW, scene.wavelengths_nm, scene.full_scale
        low, high = float(raw.min()), float(raw.max())
        msi = "" if scene.msi_MHW is None else f" + MSI {scene.msi_MHW.shape}"
        cube = f"{len(raw)} bands {raw.shape[1]}x{raw.shape[2]}, {raw.dtype}{msi}, "
        cube += f"{scene.bit_depth or '?'} bits"
        values = f"{low:g} to {high:g} of {full_scale:g} ({high / full_scale:.1%} used)"
        waves = "unknown" if nm is None else f"{nm[0]:g} to {nm[-1]:g} nm"
        rows.append(texts(name, cube, values, waves, "\n".join(problems(scene))))
        if thumbnail:
            pictures.append(small_picture(scene, 256))
    out.print(Grid(("scene", "cube", "values", "wavelengths", "notes and problems"), rows))
    if thumbnail and pictures:
        contact_sheet(pictures, thumbnail)
        out.print(f"Picture  {thumbnail}", soft_wrap=True)
    if failed:
        raise UserError(f"{path}: {failed} of {len(loads)} scenes cannot be read; see the table")


@data_app.command()
def prepare(
    dataset: Annotated[DataSet, typer.Argument(metavar="SET", help="Set that the source holds.")],
    source: Annotated[Path, typer.Option(help="Folder or file of the original data.")],
    store: Annotated[Path, typer.Option("--out", help="The scene store to write.")],
    split: Annotated[
        str | None, typer.Option(help="A split (mhiflab data splits) or a JSON file.")
    ] = None,
    key: Key = None,
    bands_axis: BandsAxis = None,
    full_scale: FullScale = None,
    wavelengths: Wavelengths = None,
    no_data: NoData = None,
    crop_valid: CropValid = False,
) -> None:
    """Write original data into one lossless scene store; a stopped run continues.

    Prints the set's fingerprint, which depends on names and pixels alone.
    """
    import numpy as np

    from feinfn.data.prepare import prepare as prepare_store
    from feinfn.data.readers.formats import HARVARD_NM
    from feinfn.data.readers.known import KNOWN
    from feinfn.data.readers.sequence import CAVE_NM
    from feinfn.data.splits import read_split

    if not source.exists():
        raise UserError(f"{source}: no such file or folder; --source is where the data lies")
    options = read_options(key, bands_axis, full_scale, wavelengths, no_data)
    given = {k: v for k, v in vars(options).items() if v is not None and k != "prefix"}
    is_known = dataset.value in KNOWN
    expected_nm = {"cave": CAVE_NM, "harvard": HARVARD_NM}.get(dataset.value)
    if given and is_known:
        raise UserError(
            f"--{next(iter(given)).replace('_', '-')}: found with {dataset}, whose file is known, "
            "expected with cave, harvard or files; leave it out"
        )
    scenes = loaders(source, dataset.value if is_known else None, options)
    settings: dict[str, object] = {"crop_valid": True} if crop_valid else {}
    settings |= {k: v.tolist() if k == "wavelengths_nm" else v for k, v in given.items()}

    notes: dict[str, tuple[str, ...]] = {}

    def read(name: str, path: Path) -> "Scene":
        scene = scenes[name][1]()
        notes[name] = scene.notes
        scene = scene.without_gaps() if crop_valid else scene
        nm = () if scene.wavelengths_nm is None else scene.wavelengths_nm
        if expected_nm is not None and not np.array_equal(nm, expected_nm):
            raise UserError(
                f"{path}: found {len(scene.raw_SHW)} bands, wavelengths {nm[:1]} to {nm[-1:]}, "
                f"expected {len(expected_nm)} bands from {expected_nm[0]:g} to "
                f"{expected_nm[-1]:g} nm as in {dataset}; read other data as files"
            )
        return scene

    started = time.monotonic()
    with progress_of("preparing") as on_progress:
        prepared = prepare_store(
            {name: path for name, (path, _) in scenes.items()},
            store,
            read=read,
            set_name=dataset.value,
            split=read_split(split) if split else None,
            settings=settings,
            on_progress=on_progress,
        )
    say_notes(notes)
    count = len(prepared["scenes"])
    cost = f"{store.stat().st_size / 1e6:.1f} MB, {time.monotonic() - started:.1f} s"
    out.print(f"{count} scenes, {cost}  {store}", soft_wrap=True)
    if left_out := len(scenes) - count:
        out.print(f"{left_out} scenes of the source stand in no part of the split and are left out")
    out.print(f"Fingerprint  {prepared['fingerprint']}", soft_wrap=True)


@data_app.command()
def fingerprint(
    paths: Annotated[list[Path], typer.Argument(help="Scenes, folders of scenes, scene stores.")],
    published: Published = None,
    key: Key = None,
    bands_axis: BandsAxis = None,
    full_scale: FullScale = None,
    wavelengths: Wavelengths = None,
    no_data: NoData = None,
) -> None:
    """Print the pixel hash of every scene and the fingerprint of each set.

    Equal pixels and wavelengths give equal hashes, whatever the layout they are stored in.
    """
    from feinfn.data.store import set_fingerprint

    options = read_options(key, bands_axis, full_scale, wavelengths, no_data)
    for path in paths:
        hashes, notes = {}, {}
        for name, (_, load) in loaders(path, published, options).items():
            scene = load()
            hashes[name], notes[name] = scene.pixel_hash(), scene.notes
            out.print(f"{hashes[name]}  {escape(name)}", soft_wrap=True)
        say_notes(notes)
        out.print(f"[bold]{set_fingerprint(hashes)}  {escape(str(path))}[/]", soft_wrap=True)


@data_app.command()
@named_by_option(**{"train.patch_px": "--patch", "train.stride_px": "--stride"})
def export(
    source: Annotated[Path, typer.Option(help="A scene store (mhiflab data prepare).")],
    protocol: Annotated[
        str, typer.Option(help="How inputs are simulated (mhiflab data protocols).")
    ],
    file: Annotated[Path, typer.Option("--out", help="The HDF5 file to write.")],
    part: Annotated[Part, typer.Option(help="Part of the store's split to write.")],
    patch: Annotated[
        int | None, typer.Option(help="Cut patches of this many pixels (default: whole scenes).")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(help="Pixels between patches (default: 34).")
    ] = None,
) -> None:
    """Write simulated pairs as GT, LRHSI, RGB and HSI_up, for other training codes."""
    from feinfn.data.export import STRIDE_PX, facts, simulated_pairs
    from feinfn.data.export import export as write
    from feinfn.data.store import manifest, read_stored
    from feinfn.protocols.named import PROTOCOLS

    if protocol not in PROTOCOLS:
        raise UserError(f"--protocol: found {protocol!r}, expected one of {', '.join(PROTOCOLS)}")
    if file.exists():
        raise UserError(f"{file}: found a file there; remove it or choose another name with --out")
    check_targets((file,))
    store = manifest(source)
    if part != Part.all and not store["split"]:
        raise UserError(
            f"{source}: the store has no split, so it has no part {part.value}; prepare it with "
            "--split, or export --part all"
        )
    if stride is not None and patch is None:
        raise UserError("--stride: found without --patch, expected both or none")
    names = sorted(store["scenes"]) if part == Part.all else store["split"][part.value]
    chosen, step = PROTOCOLS[protocol], STRIDE_PX if stride is None else stride
    with progress_of("exporting") as on_progress:

        def scenes() -> "Iterator[Scene]":
            for done, name in enumerate(names):
                on_progress(name, done, len(names))
                yield read_stored(source, name)

        about = facts(chosen, names, patch, step)
        count = write(simulated_pairs(scenes(), chosen, patch, step), file, about)
    out.print(f"{count} images of {len(names)} scenes  {file}", soft_wrap=True)
    out.print(f"{about['about']}; bands of RGB: {about['band_order_of_RGB']}", soft_wrap=True)


@data_app.command()
def splits() -> None:
    """List the splits that come with the package."""
    from feinfn.data.splits import SPLITS

    rows = []
    for name, split in SPLITS.items():
        sizes = [len(names) for names in split.parts().values()]
        counts = [Cell(str(size), value=size) for size in sizes]
        rows.append([Cell(name), *counts, Cell(split.source)])
    out.print(Grid(("split", "train", "validation", "test", "source"), rows), "")
    out.print(
        "The lists have no validation part of their own; it is cut from the training scenes: by "
        "name, the first and every 7th after it. Harvard: which 10 and 10 images are in use is not "
        "known; give --split a JSON file with the lists train, validation and test.",
    )


@data_app.command()
def protocols() -> None:
    """List the protocols: ratio, blur, spectral response, and which of it is inferred."""
    from feinfn.protocols.named import PROTOCOLS

    rows = []
    for name, p in PROTOCOLS.items():
        sigma = "" if p.psf_sigma_px is None else f", sigma {p.psf_sigma_px:.3g}"
        psf = f"{p.psf} {p.psf_px}x{p.psf_px}{sigma}, {p.psf_border}, phase {p.phase_px}"
        srf = f"{p.srf} by {p.srf_by}: {', '.join(p.msi_order)}"
        ratio = Cell(str(p.ratio), value=p.ratio)
        rows.append([Cell(name), ratio, *texts(psf, srf, p.known, p.inferred)])
    out.print(Grid(("protocol", "ratio", "PSF", "SRF", "known", "inferred"), rows))
