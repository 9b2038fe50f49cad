"""Study files, and the command as a user types it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from tiny import TINY, record_study

from mhiflab.plan.plan import Entry


@pytest.fixture(autouse=True)
def same_environment() -> Iterator[None]:
    """Take back what a test made of the environment: a later Ray would start by it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


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


@pytest.fixture
def mhiflab(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess]:
    """Return a function that runs the command in an empty folder."""

    def call(*words: object, **environment: str) -> subprocess.CompletedProcess:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "RAY", "MHIF"))}
        # COLUMNS keeps rich from breaking the lines that tests look for.
        return subprocess.run(
            [sys.executable, "-m", "mhiflab", *map(str, words)],
            cwd=tmp_path,
            env={**clean, "COLUMNS": "200", **environment},
            capture_output=True,
            text=True,
            timeout=400,
        )

    return call
