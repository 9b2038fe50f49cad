"""Options and arguments that several commands share."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from feinfn.errors import UserError

StudyArgument = Annotated[
    str,
    typer.Argument(
        help="A study file such as experiments/demo.yaml, or the name of a shipped study (demo).",
        metavar="STUDY",
    ),
]
PaperArgument = Annotated[
    str,
    typer.Argument(
        help="The file of a study or a paper, or the name of a shipped one (demo, laptop).",
        metavar="STUDY",
    ),
]
LabOption = Annotated[
    Path,
    typer.Option(
        "--lab",
        help="Folder of checkpoints, tables and, unless MLFLOW_TRACKING_URI is set, the record.",
        envvar="MHIFLAB_LAB",
    ),
]
SmokeOption = Annotated[
    bool,
    typer.Option(
        "--smoke", help="Take the small variant on the embedded sample: a minute on two cores."
    ),
]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        help="Read runs from this folder, which `export` wrote; neither lab nor scenes are needed."
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", help="Folder to write into (default: LAB/rendered/STUDY)."),
]
NewDataOption = Annotated[
    bool,
    typer.Option("--new-data", help="Start a trial anew if its data changed since it began."),
]
RepeatOption = Annotated[
    bool,
    typer.Option(
        "--repeat-lost", help="Train again what is finished but was deleted from the record."
    ),
]


@contextmanager
def named_by_option(**options: str) -> Iterator[None]:
    """Let errors of a command name the option that sets a parameter: `memory_mib="--memory"`."""
    try:
        yield
    except UserError as error:
        error.field = options.get(error.field, error.field)
        raise
