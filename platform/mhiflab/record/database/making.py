"""Making, migrating and moving a record's database, by one process at a time.

MLflow works on a database where it lies and without a lock. Here it works on a file beside it,
which takes the name when it is whole.
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from importlib.metadata import version
from pathlib import Path

import sqlalchemy
from sqlalchemy.pool import NullPool

from feinfn.errors import UserError
from mhiflab.exclusion import FileExclusion
from mhiflab.record.database.condition import WRITER_TAG, condition, opened
from mhiflab.record.database.reading import MOVES

WAIT_S = 300.0
"""Seconds that a process waits for another one to make or migrate a database."""


def make(path: Path, experiment: str, location: str | None, tags: Mapping[str, str]) -> None:
    """Make a database with an experiment, unless another process has made it meanwhile."""
    from mlflow.entities import ExperimentTag
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with _replaced(path) as partial:
        if condition(path) == "none":
            store = SqlAlchemyStore(f"sqlite:///{partial}", "./mlruns")
            named = [
                ExperimentTag(*item) for item in {**tags, WRITER_TAG: version("mlflow")}.items()
            ]
            store.create_experiment(experiment, location, named)
            store._dispose_engine()


def migrate(path: Path) -> Path | None:
    """Migrate an older database and return its backup, None if there was nothing to do.

    Raise `UserError` if another program has it open.
    """
    from mlflow.store.db import utils

    with _replaced(path) as partial, closing(_writable(path)) as database:
        if condition(path) != "older":
            return None
        try:
            # A log of writes beside the file would be taken for that of the new file.
            database.execute("PRAGMA journal_mode = DELETE")
            # From here to the change of names nobody else writes.
            database.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise UserError(
                f"{path}: another program has it open ({error}); stop that, then run again"
            ) from None
        (revision,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        # By another connection: SQLite copies nothing for one that is about to write.
        with closing(sqlite3.connect(partial)) as copy, closing(opened(path)) as source:
            source.backup(copy)
        engine = sqlalchemy.create_engine(f"sqlite:///{partial}", poolclass=NullPool)
        utils._upgrade_db(engine)
        with closing(_writable(partial)) as migrated:
            migrated.execute(
                "INSERT OR REPLACE INTO experiment_tags (key, value, experiment_id) "
                "SELECT ?, ?, experiment_id FROM experiments",
                (WRITER_TAG, version("mlflow")),
            )
        backup = path.with_name(f"{path.name}.{revision}.backup")
        backup.unlink(missing_ok=True)
        os.link(path, backup)
    return backup


def move(path: Path, before: str, location: str) -> None:
    """Write the present URI of the artifacts of a moved lab to its database."""
    with closing(sqlite3.connect(path, timeout=60)) as database, database:
        for table, (moved, value) in MOVES.items():
            database.execute(
                f"UPDATE {table} SET {moved} = {value}",  # noqa: S608
                {"old": before, "new": location},
            )


@contextmanager
def _replaced(path: Path) -> Iterator[Path]:
    """Hold a database alone; yield a file beside it, which takes its name if it was made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileExclusion(path.with_name(f".{path.name}.lock"), WAIT_S)
    if not lock.take():
        raise UserError(
            f"{path}: another process still makes or migrates it after {WAIT_S:g} s; wait for it "
            "or stop it, then run again"
        )
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        if partial.exists():
            partial.replace(path)
    finally:
        for end in ("", "-journal"):
            partial.with_name(partial.name + end).unlink(missing_ok=True)
        lock.give_back()


def _writable(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=60, isolation_level=None)
