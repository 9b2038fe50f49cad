"""Reading a record's database: MLflow's store on a file that is opened for reading alone."""

import sqlite3
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote
from urllib.request import url2pathname

import sqlalchemy
from mlflow import MlflowClient
from sqlalchemy.pool import NullPool

from mhiflab.record.database.condition import database_file, opened

READING = "mhiflab-reading"
"""Scheme of URIs under which MLflow opens databases for reading alone."""

MOVES = {
    "runs": (
        "artifact_uri",
        "CASE WHEN substr(artifact_uri, 1, length(:old) + 1) = :old || '/' "
        "THEN :new || substr(artifact_uri, length(:old) + 1) ELSE artifact_uri END",
    ),
    "experiments": (
        "artifact_location",
        "CASE WHEN artifact_location = :old THEN :new ELSE artifact_location END",
    ),
}
"""Column of MLflow's tables that holds a place of artifacts, and what it is after a move."""

_moves: dict[Path, tuple[str, str]] = {}
"""Earlier and present URI of the artifacts of databases that are only read."""


def reading_client(path: Path, moved: tuple[str, str] | None = None) -> MlflowClient:
    """Return a client of a database that can write nothing to it.

    `moved` are the earlier and the present URI of its artifacts.
    """
    _register_reading()
    if moved:
        _moves[path.absolute()] = moved
    return MlflowClient(tracking_uri=f"{READING}://{quote(str(path.absolute()))}")


@cache
def _register_reading() -> None:
    """Make `READING` known to MLflow, as its plugins do."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.tracking._tracking_service import utils

    class ReadingStore(SqlAlchemyStore):
        """MLflow's store on a database that is opened for reading, anew for every request."""

        @classmethod
        def _get_or_create_engine(cls, db_uri: str) -> sqlalchemy.Engine:
            path = database_file(db_uri)
            assert path is not None, "only files are opened so"
            return sqlalchemy.create_engine(
                db_uri, poolclass=NullPool, creator=lambda: _connection(path)
            )

        def _create_default_experiment(self, session: Any) -> None:
            """Do without it if somebody removed it."""

    def reading_store(store_uri: str, artifact_uri: str | None = None) -> ReadingStore:
        path = url2pathname(store_uri.removeprefix(f"{READING}://"))
        return ReadingStore(f"sqlite:///{path}", artifact_uri or "./mlruns")

    utils._tracking_store_registry.register(READING, reading_store)


def _connection(path: Path) -> sqlite3.Connection:
    """Return a connection for reading, in which views stand for the tables of a moved lab."""
    database = opened(path, check_same_thread=False)
    if path in _moves:
        places = dict(zip(("old", "new"), _moves[path], strict=True))
        for table, (moved, value) in MOVES.items():
            for name, place in places.items():
                value = value.replace(f":{name}", "'" + place.replace("'", "''") + "'")
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
            chosen = ", ".join(f"{value} AS {one}" if one == moved else one for one in columns)
            database.execute(f"CREATE TEMP VIEW {table} AS SELECT {chosen} FROM main.{table}")  # noqa: S608
    return database
