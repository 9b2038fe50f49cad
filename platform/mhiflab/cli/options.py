"""Options and arguments that several commands share."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.markup import escape
from typer import Argument, Option, echo

from feinfn.errors import UserError
from mhiflab.console import out
from mhiflab.paths import study_path

if TYPE_CHECKING:
    import numpy as np

    from feinfn.data.readers.array import Options
    from feinfn.data.scene import Scene


class DataSet(StrEnum):
    """The sets that `prepare` reads."""

    cave = "cave"
    harvard = "harvard"
    indian_pines = "indian_pines"
    jasper = "jasper"
    pavia_centre = "pavia_centre"
    paris = "paris"
    files = "files"


class Part(StrEnum):
    """The parts that `export` writes."""

    train = "train"
    validation = "validation"
    test = "test"
    all = "all"


FullScale = Annotated[
    float | None, Option(help="Stored number that means 1, if the file does not say (4095, 10000).")
]
Wavelengths = Annotated[
    str | None,
    Option(
        metavar="FIRST:LAST:STEP",
        help="Band centres in nm, if the file does not say, e.g. 400:700:10.",
    ),
]


CropValid = Annotated[
    bool, Option("--crop-valid", help="Crop scenes to their largest rectangle without no-data.")
]
Key = Annotated[str | None, Option(help="Array to read, if a file holds several (see inspect).")]
Published = Annotated[
    str | None,
    Option("--set", help="Read the file as this published set: indian_pines, jasper, ..."),
]
BandsAxis = Annotated[int | None, Option(help="Axis that counts bands, if the shape does not say.")]
NoData = Annotated[
    float | None, Option(help="Stored number that means no data, if the file does not say (-9999).")
]
Loaders = dict[str, tuple[Path, Callable[[], "Scene"]]]
"""Scene's name -> its file or folder, and the call that reads it."""


def grid_nm(text: str | None) -> "np.ndarray | None":
    """Return the wavelengths that FIRST:LAST:STEP stands for."""
    import numpy as np

    if text is None:
        return None
    try:
        first, last, step = (float(word) for word in text.split(":"))
        nm = np.linspace(first, last, round((last - first) / step) + 1 if step > 0 else 0)
    except (ValueError, OverflowError):
        nm = np.empty(0)
    # The last band must lie on the grid: 400:705:10 would otherwise get another step unnoticed.
    if len(nm) == 0 or (len(nm) > 1 and not np.isclose(nm[1] - nm[0], step)):
        raise UserError(f"--wavelengths: found {text!r}, expected FIRST:LAST:STEP, as 400:700:10")
    return nm


def read_options(
    key: str | None,
    bands_axis: int | None,
    full_scale: float | None,
    wavelengths: str | None,
    no_data: float | None,
) -> "Options":
    """Return the options as the readers take them."""
    from feinfn.data.readers.array import Options

    return Options(
        key=key,
        bands_axis=bands_axis,
        full_scale=full_scale,
        no_data=no_data,
        wavelengths_nm=grid_nm(wavelengths),
    )


def loaders(path: Path, published: str | None, options: "Options") -> Loaders:
    """Return the scenes of a store, of a folder of scenes, or of one file."""
    from feinfn.data.scene import read_known, read_scene
    from feinfn.data.source import scene_files
    from feinfn.data.store import is_store, manifest, read_stored

    if is_store(path):
        return {n: (path, partial(read_stored, path, n)) for n in manifest(path)["scenes"]}
    if published:
        return {published: (path, partial(read_known, published, path))}
    files = scene_files(path, options)
    return {name: (file[0], partial(read_scene, *file, name)) for name, file in files.items()}


def say_notes(notes: Mapping[str, Sequence[str]]) -> None:
    """Print the notes on scenes to stderr, each once, with the number of scenes it is about."""
    counts = Counter(note for of_scene in notes.values() for note in of_scene)
    for note, count in counts.items():
        echo(f"{count} of {len(notes)} scenes: {note}", err=True)


@contextmanager
def progress_of(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar with the time left; yield its on_progress(name, done, total)."""
    from rich import progress

    shown = (progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn())
    text = progress.TextColumn("{task.description}")
    with progress.Progress(text, *shown, console=out, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda name, done, total: bar.update(
            task, description=f"{what} {escape(name)}", completed=done, total=total
        )


StudyArgument = Annotated[
    str,
    Argument(
        help="A study file such as experiments/demo.yaml, or the name of a shipped study (demo).",
        metavar="STUDY",
    ),
]
PaperArgument = Annotated[
    str,
    Argument(
        help="The file of a study or a paper, or the name of a shipped one (demo, laptop).",
        metavar="STUDY",
    ),
]
LabOption = Annotated[
    Path,
    Option(
        "--lab",
        help="Folder of checkpoints, tables and, unless MLFLOW_TRACKING_URI is set, the record.",
        envvar="MHIFLAB_LAB",
    ),
]
SmokeOption = Annotated[
    bool,
    Option("--smoke", help="Take the small variant on the embedded sample: a minute on two cores."),
]
RecordOption = Annotated[
    Path | None,
    Option(
        help="Read runs from this folder, which `export` wrote; neither lab nor scenes are needed."
    ),
]
OutOption = Annotated[
    Path | None, Option("--out", help="Folder to write into (default: LAB/rendered/STUDY).")
]
NewDataOption = Annotated[
    bool, Option("--new-data", help="Start a trial anew if its data changed since it began.")
]
RepeatOption = Annotated[
    bool,
    Option("--repeat-lost", help="Train again what is finished but was deleted from the record."),
]


def study_files(paper: str) -> list[Path]:
    """Return the files of a paper's studies, or of a study alone."""
    from mhiflab.study.read import read_paper

    return read_paper(study_path(paper)).files()


@contextmanager
def named_by_option(**options: str) -> Iterator[None]:
    """Let errors of a command name the option that sets a parameter: `memory_mib="--memory"`."""
    try:
        yield
    except UserError as error:
        error.field = options.get(error.field, error.field)
        raise
