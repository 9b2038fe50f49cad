"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

StudyArgument = Annotated[
    str,
    typer.Argument(
        help="A study file such as experiments/demo.yaml, or the name of a shipped study (demo); "
        "for plan, run, table also a paper's file (experiments/paper/paper.yaml).",
        metavar="STUDY",
    ),
]
PaperArgument = Annotated[
    str, typer.Argument(help="A paper's file (or the name of a shipped one: paper).")
]
LabOption = Annotated[
    Path,
    typer.Option(
        "--lab",
        help="Folder of checkpoints, tables and (unless MLFLOW_TRACKING_URI is set) the record.",
        envvar="MHIFLAB_LAB",
    ),
]
SmokeOption = Annotated[
    bool,
    typer.Option(
        "--smoke", help="The study's small variant: a minute on two cores, embedded sample."
    ),
]
RecordOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder that `export` wrote: its runs instead of the lab's; needs no scenes."
    ),
]
NewDataOption = Annotated[
    bool,
    typer.Option("--new-data", help="Start trials anew whose data changed since they began."),
]
