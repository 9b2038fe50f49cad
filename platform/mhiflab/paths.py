"""Places: the checkout (if any), shipped studies, the lab, and files that are to be written."""

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from feinfn.errors import UserError

_PACKAGE = Path(__file__).parent


def checkout() -> Path | None:
    """Return the root of the source checkout this package runs from, None when installed."""
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
    """Return the file that a submitted job's code carries in place of a git history."""
    return _PACKAGE / "submitted.json"


def nearest_existing(path: Path) -> Path:
    """Return a path where it exists, else the nearest above it that does."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def shipped_studies() -> list[str]:
    """Return the names of the shipped studies."""
    return sorted(path.stem for path in experiments_dir().glob("*.yaml"))


def shipped_files() -> dict[str, Path]:
    """Return the shipped studies and papers by name."""
    folders = (experiments_dir() / "paper", experiments_dir())
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def study_path(given: str) -> Path:
    """Return the file meant by a path, or by the name of a shipped study or paper."""
    return shipped_files().get(given, Path(given))


def study_name(path: Path, smoke: bool) -> str:
    """Return a study's name: its file's stem, marked where its smoke variant is meant."""
    return path.stem + ("-smoke" if smoke else "")


@dataclass(frozen=True)
class Lab:
    """The folder that holds records, checkpoints and renderings."""

    root: Path

    @property
    def database(self) -> Path:
        """MLflow's SQLite file."""
        return self.root / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        """MLflow's artifacts beside the database."""
        return self.root / "artifacts"

    @property
    def ray(self) -> Path:
        """Scratch space of Ray Tune and Ray Train."""
        return self.root / "ray"

    @property
    def spool(self) -> Path:
        """Journals of runs whose record has not reached MLflow yet, one folder a run."""
        return self.root / "spool"

    @property
    def states(self) -> Path:
        """Training states, one folder a run."""
        return self.root / "checkpoints"

    def checkpoints(self, key: str) -> Path:
        """Return the folder of a trial's training state."""
        return self.states / key

    def rendered(self, study: str) -> Path:
        """Return the folder of a study's tables and figures."""
        return self.root / "rendered" / study

    def rendered_of(self, path: Path, smoke: bool) -> Path:
        """Return that folder of a study's or a paper's file."""
        return self.rendered(study_name(path, smoke))


def check_targets(targets: Iterable[Path], inputs: Iterable[Path] = (), force: bool = True) -> None:
    """Raise `UserError` for a file that cannot be written, is an input, or exists without `force`.

    Nothing is left on the disk, no folder made.
    """
    given = list(inputs)
    for target in targets:
        try:
            _check_place(target)
            exists = target.exists()
        except OSError as error:
            raise UserError(
                f"{target}: cannot be written ({error.strerror}), expected a file in a "
                "folder that may be written to; choose another name"
            ) from None
        for one in given:
            inside = one.is_dir() and target.resolve().is_relative_to(one.resolve())
            if inside or (exists and one.exists() and target.samefile(one)):
                raise UserError(
                    f"--out: found {target}, which would {'change' if inside else 'overwrite'} the "
                    f"input {one}, expected another file; choose another name"
                )
        if exists and not force:
            raise UserError(
                f"{target}: found a file there, expected none; choose another name, or overwrite "
                "it with --force"
            )


def check_rendered(path: Path, smoke: bool, lab: Lab) -> None:
    """Raise `UserError` if tables of a study or a paper could not be written, before the work."""
    check_targets((lab.rendered_of(path, smoke) / "table.md",))


def _check_place(target: Path) -> None:
    """Raise `UserError` for a folder, `OSError` where no file of this name can be made."""
    if target.is_dir():
        raise UserError(
            f"{target}: found a folder, expected a file; move it, or choose another name"
        )
    # The longer name that it has while it is written.
    (target.parent / f".{target.name}.{os.getpid()}.partial").exists()
    folder = nearest_existing(target.parent)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: found a file, expected a folder for {target.name}; move it, or choose "
            "another name"
        )
    # To try is the only sure way: modes say nothing of read-only file systems, nor to root.
    with tempfile.TemporaryFile(dir=folder):
        pass


HERE = Path("lab")
