"""Where things lie: the checkout (if any), shipped studies, and the lab folder."""

from dataclasses import dataclass
from pathlib import Path

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
