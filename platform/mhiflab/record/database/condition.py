"""Condition of a record's database, told before MLflow is asked, which would migrate it."""

import os
import re
import sqlite3
from contextlib import closing, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy
from alembic.script import ScriptDirectory
from sqlalchemy.pool import NullPool

from feinfn.errors import UserError
from mhiflab.record.database.errors import without_passwords

WRITER_TAG = "mhiflab.mlflow_version"
"""Tag of an experiment: version of the MLflow that made or migrated its database."""


def has_record(uri: str, remedy: str) -> bool:
    """Return True if a store has a record of this MLflow, False if it has none.

    Raise `UserError`, with a remedy for a file, if an older MLflow made it.
    """
    path = database_file(uri)
    where = path or without_passwords(uri)
    if path:
        state = condition(path)
    else:
        state = "current" if uri.startswith("http") else _condition_of_server(uri)
        remedy = "keep a backup and let whoever keeps it migrate it: mlflow db upgrade URI"
    if state == "older":
        raise UserError(
            f"{where}: found a record of an older MLflow, expected the schema of MLflow "
            f"{version('mlflow')}; {remedy} (the MLflow that made it cannot open it afterwards)"
        )
    return state == "current"


def condition(path: Path) -> str:
    """Return `none`, `current` or `older`, and write nothing.

    Raise `UserError` if the file is damaged, of another program, half made, or of a newer MLflow.
    """
    if not path.exists() or not path.stat().st_size:
        return "none"
    try:
        with closing(opened(path)) as database:
            names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            tables = {name for (name,) in names}
            known = "alembic_version" in tables
            rows = database.execute("SELECT * FROM alembic_version").fetchall() if known else []
            writer, runs = "", 0
            # A database of another program has neither table.
            with suppress(sqlite3.Error):
                (runs,) = database.execute("SELECT count(*) FROM runs").fetchone()
                query = "SELECT value FROM experiment_tags WHERE key = ?"
                for (value,) in database.execute(query, (WRITER_TAG,)):
                    writer = f"MLflow {value}; "
    except sqlite3.Error as error:
        raise UserError(_unreadable(path, error)) from None
    revisions = [revision for (revision,) in rows]
    return _judged(str(path), tables, revisions, writer, runs)


def _condition_of_server(uri: str) -> str:
    engine = sqlalchemy.create_engine(uri, poolclass=NullPool)
    with engine.connect() as connection:
        tables = set(sqlalchemy.inspect(connection).get_table_names())
        query = sqlalchemy.text("SELECT version_num FROM alembic_version")
        known = "alembic_version" in tables
        revisions = [one for (one,) in connection.execute(query)] if known else []
    return _judged(engine.url.render_as_string(), tables, revisions)


def _judged(
    where: str, tables: set[str], revisions: list[str], writer: str = "", runs: int = 0
) -> str:
    """Return the condition of a database with these tables and revisions of its schema."""
    if not tables:
        return "none"
    unfinished = any(name.startswith("_alembic_tmp") for name in tables)
    if unfinished or ("experiments" in tables and len(revisions) != 1):
        remedy = f"restore a backup, it holds {runs} runs" if runs else "it holds no run: delete it"
        raise UserError(
            f"{where}: found an MLflow database that was left half made or half migrated, by "
            f"programs that opened it at the same moment or were killed, expected a whole one; "
            f"{remedy}, then run again"
        )
    if "experiments" not in tables:
        raise UserError(
            f"{where}: found a database of another program ({', '.join(sorted(tables)[:4])}), "
            "expected MLflow's record; name another with --lab or MLFLOW_TRACKING_URI"
        )
    newest, known = _revisions()
    if revisions[0] not in known:
        raise UserError(
            f"{where}: found a record of a newer MLflow ({writer}schema {revisions[0]}), expected "
            f"at most that of MLflow {version('mlflow')}, which is installed here; install that "
            "MLflow, or name another record with --lab or MLFLOW_TRACKING_URI"
        )
    return "current" if revisions[0] == newest else "older"


@cache
def _revisions() -> tuple[str, frozenset[str]]:
    """Return the revision of this MLflow's schema, and all that it can migrate from."""
    import mlflow.store.db_migrations as migrations

    script = ScriptDirectory(str(Path(migrations.__file__).parent))
    known = frozenset(one.revision for one in script.walk_revisions())
    return str(script.get_current_head()), known


def _unreadable(path: Path, error: Exception) -> str:
    """Return why a file cannot be read as a database, and what to do."""
    reason = str(error)
    if "not a database" in reason:
        remedy = "move this file away, or name another record with --lab or MLFLOW_TRACKING_URI"
        return f"{path}: found a file that is no database, expected MLflow's SQLite file; {remedy}"
    remedy = "restore it from a backup"
    if "locked" in reason:
        remedy = "wait for the process that writes it"
    elif "readonly" in reason or "unable to open" in reason:
        remedy = (
            "a killed process left a write half done beside it, or this user may not read it: "
            "copy its folder to a place that may be written to"
        )
    return f"{path}: cannot be read as a database ({reason}); {remedy}"


def opened(path: Path, **options: Any) -> sqlite3.Connection:
    """Open a database for reading.

    If a killed process left a write half done, SQLite takes that back first, as for every reader.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode=ro"
    database = sqlite3.connect(uri, uri=True, timeout=60, **options)
    try:
        database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error) or not os.access(path, os.W_OK):
            database.close()
            raise
        with closing(sqlite3.connect(path, timeout=60)) as writable:
            writable.execute("SELECT count(*) FROM sqlite_master").fetchone()
    return database


def database_file(uri: str) -> Path | None:
    """Return the file of an SQLite database's URI, None for any other store."""
    name = re.fullmatch(r"sqlite(?:\+pysqlite)?:///([^?]+)(?:\?.*)?", uri)
    return Path(name[1]) if name else None
