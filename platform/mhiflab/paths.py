"""Paths: the checkout (if any), shipped studies, the lab, and files to write."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from feinfn.errors import UserError

_PACKAGE = Path(__file__).parent

REPORT_FILE = "report.html"


def checkout() -> Path | None:
    """Return the root of the source checkout that this package runs from, None if installed."""
    root = _PACKAGE.parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "feinfn").is_dir() else None


def experiments_dir() -> Path:
    """Return the folder of shipped studies: the checkout's, or the copy inside the wheel."""
    root = checkout()
    return root / "experiments" if root else _PACKAGE / "experiments"


def lock_file() -> Path:
    """Return the lock file of the checkout, or the copy inside the wheel."""
    root = checkout()
    return (root or _PACKAGE) / "requirements.lock"


def submitted_file() -> Path:
    """Return the file that replaces the git history in a submitted job's code."""
    return _PACKAGE / "submitted.json"


def nearest_existing(path: Path) -> Path:
    """Return a path if it exists, else its nearest parent that does."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def shipped_studies() -> list[str]:
    """Return the names of the shipped studies."""
    return sorted(path.stem for path in experiments_dir().glob("*.yaml"))


def shipped_files() -> dict[str, Path]:
    """Return the shipped studies and papers by name."""
    folders = (experiments_dir() / "paper", experiments_dir())
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def study_path(study: str) -> Path:
    """Return the file of a shipped study or paper, given by its name, or of any other path."""
    return shipped_files().get(study, Path(study))


def study_name(path: Path, smoke: bool) -> str:
    """Return a study's name: its file's stem, with `-smoke` for its smoke variant."""
    return path.stem + ("-smoke" if smoke else "")


def path_of(uri: str) -> Path | None:
    """Return the path that a file's URI or a plain path names; None for other schemes."""
    parts = urlsplit(uri)
    return Path(url2pathname(parts.path)) if parts.scheme in ("", "file") else None


@dataclass(frozen=True)
class Lab:
    """Folder that holds records, checkpoints and renderings."""

    root: Path

    @property
    def database(self) -> Path:
        """MLflow's SQLite file."""
        return self.root / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """Folder of MLflow's artifacts, beside the database."""
        return self.root / "artifacts"

    @property
    def ray(self) -> Path:
        """Scratch folder of Ray Tune and Ray Train."""
        return self.root / "ray"

    @property
    def runs(self) -> Path:
        """Folder of runs that have not reached MLflow yet, with one folder per run."""
        return self.root / "runs"

    @property
    def states(self) -> Path:
        """Folder of training states, with one folder per run."""
        return self.root / "checkpoints"

    @property
    def cache(self) -> Path:
        """Folder of scores that many trials share; what is missing is computed again."""
        return self.root / "cache"

    def checkpoints(self, key: str) -> Path:
        """Return the folder of a trial's training state."""
        return self.states / key

    def rendered(self, study: str) -> Path:
        """Return the folder of a study's tables and figures."""
        return self.root / "rendered" / study

    def rendered_of(self, path: Path, smoke: bool) -> Path:
        """Return the folder of tables and figures for the file of a study or a paper."""
        return self.rendered(study_name(path, smoke))


def check_targets(targets: Iterable[Path], inputs: Iterable[Path] = (), force: bool = True) -> None:
    """Raise `UserError` if a file cannot be written, is an input, or exists and not `force`.

    The check leaves no file and no folder on the disk.
    """
    input_paths = list(inputs)
    for target in targets:
        try:
            _check_place(target)
            exists = target.exists()
        except OSError as error:
            raise UserError(
                f"{target}: cannot be written ({error.strerror}), expected a file in a "
                "folder that may be written to; choose another place with --out or --lab"
            ) from None
        for path in input_paths:
            inside = path.is_dir() and target.resolve().is_relative_to(path.resolve())
            if inside or (exists and path.exists() and target.samefile(path)):
                raise UserError(
                    f"--out: found {target}, which would {'change' if inside else 'overwrite'} the "
                    f"input {path}, expected another file; choose another name"
                )
        if exists and not force:
            raise UserError(
                f"{target}: found a file there, expected none; choose another name, or overwrite "
                "it with --force"
            )


def _check_place(target: Path) -> None:
    """Raise `UserError` if a path is a folder, `OSError` if no file of this name can be created."""
    if target.is_dir():
        raise UserError(
            f"{target}: found a folder, expected a file; move it, or choose another name"
        )
    # Raises `OSError` if the name is too long with what it gets while the file is written.
    (target.parent / f".{target.name}.{os.getpid()}-12345678.partial").exists()
    folder = nearest_existing(target.parent)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: found a file, expected a folder for {target.name}; move it, or choose "
            "another name"
        )
    # Only a trial is sure: modes know nothing of read-only file systems, and root ignores them.
    with tempfile.TemporaryFile(dir=folder):
        pass


DEFAULT_LAB = Path("lab")
"""Lab folder if `--lab` is left out."""
