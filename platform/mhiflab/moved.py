"""A lab that was moved or copied takes its artifacts along."""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from feinfn.errors import UserError
from mhiflab.paths import Lab

MOVES = (
    "UPDATE runs SET artifact_uri = :new || substr(artifact_uri, length(:old) + 1) "
    "WHERE substr(artifact_uri, 1, length(:old) + 1) = :old || '/'",
    "UPDATE experiments SET artifact_location = :new WHERE artifact_location = :old",
)


def move_artifacts(lab: Lab, before: str, location: str) -> None:
    """Let a lab's record name the artifacts beside it, at `location`, instead of those at `before`.

    MLflow keeps absolute places: a copy would read the artifacts of its original, and write there.
    Raises `UserError` where the database was copied alone.
    """
    original = Path(url2pathname(urlsplit(before).path))
    if original.is_dir() and not lab.artifacts.is_dir():
        raise UserError(
            f"{lab.database}: found a record whose artifacts lie in {original}, expected them in "
            f"{lab.artifacts}; copy the whole folder of the lab, or name the original with --lab"
        )
    with closing(sqlite3.connect(lab.database, timeout=60)) as database, database:
        for statement in MOVES:
            database.execute(statement, {"old": before, "new": location})
