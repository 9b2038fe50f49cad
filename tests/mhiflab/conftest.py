"""Study files, the command as a user types it, and records that are quickly made."""

import os
import sqlite3
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import mlflow.store.db.utils
import pytest
import sqlalchemy
import yaml
from tiny import TINY, record_study

from mhiflab import console
from mhiflab.cli.main import main
from mhiflab.environment import ENVIRONMENT
from mhiflab.plan.plan import Entry

Command = Callable[..., subprocess.CompletedProcess]

# As in every process of the laboratory; MLflow and Ray read some of them when they are imported.
os.environ.update(ENVIRONMENT)


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Take back what a test made of the environment: a later Ray would start by it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True, scope="session")
def migrated_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let MLflow's migrations make one empty database; every further one is a copy of it.

    Processes that a test starts make their own.
    """
    migrate = mlflow.store.db.utils._initialize_tables
    template = tmp_path_factory.mktemp("database") / "empty.db"

    def copy(engine: sqlalchemy.Engine) -> None:
        if engine.dialect.name != "sqlite":
            migrate(engine)
            return
        if not template.exists():
            migrate(sqlalchemy.create_engine(f"sqlite:///{template}"))
        with closing(sqlite3.connect(template)) as source, engine.connect() as target:
            source.backup(target.connection.driver_connection)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mlflow.store.db.utils, "_initialize_tables", copy)
        yield


@pytest.fixture(autouse=True, scope="session")
def no_waits_for_the_disk() -> Iterator[None]:
    """Let this process's databases and files reach the disk when the system pleases.

    A killed process loses nothing by that, and no test cuts the power.
    """

    def relax(connection: Any, _: Any) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", relax)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield
    sqlalchemy.event.remove(sqlalchemy.Engine, "connect", relax)


@pytest.fixture
def write_study(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes TINY with changes and returns the file."""

    def write(name: str = "tiny", **changes: object) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**TINY, **changes}, sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[Entry, ...]]:
    """Return a study file beside a `lab` that has all its runs, and its entries; for reading."""
    return record_study(tmp_path_factory.mktemp("recorded"))


def clean_environment(changes: dict[str, str]) -> dict[str, str]:
    """Return this process's environment without settings of MLflow, Ray and ours."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "RAY", "MHIF"))}
    # COLUMNS keeps rich from breaking the lines that tests look for.
    return {**clean, "COLUMNS": "200", **changes}


@pytest.fixture
def mhiflab(tmp_path: Path) -> Command:
    """Return a function that runs the command in an empty folder, inside this process."""

    def call(*words: object, **environment: str) -> subprocess.CompletedProcess:
        arguments = ["mhiflab", *map(str, words)]
        told, complained, code = StringIO(), StringIO(), 0
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(sys, "argv", arguments)
            patch.setattr(console.out, "width", 200)
            before = dict(os.environ)
            clean = clean_environment({**ENVIRONMENT, **environment})
            os.environ.clear()
            os.environ.update(clean)
            try:
                with redirect_stdout(told), redirect_stderr(complained):
                    main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except Exception:
                code = 1
                complained.write(traceback.format_exc())
            finally:
                os.environ.clear()
                os.environ.update(before)
        return subprocess.CompletedProcess(arguments, code, told.getvalue(), complained.getvalue())

    return call


@pytest.fixture
def mhiflab_process(tmp_path: Path) -> Command:
    """Return a function that runs the command in an empty folder, in a process of its own."""

    def call(*words: object, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "mhiflab", *map(str, words)],
            cwd=tmp_path,
            env=clean_environment(environment),
            capture_output=True,
            text=True,
            timeout=400,
        )

    return call


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute trials one after another in this process, where Ray is not what a test is about."""
    from tune_here import tune_here

    tune_here(monkeypatch)
