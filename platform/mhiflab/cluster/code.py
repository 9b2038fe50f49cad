"""Where a result comes from: code, lock file, library versions, machine."""

import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import feinfn
import mhiflab
from mhiflab.paths import checkout, experiments_dir, lock_file, submitted_file

LIBRARIES = ("torch", "ray", "mlflow", "numpy", "scipy", "h5py", "optuna", "mhiflab")


def git(*words: str) -> str | None:
    """Return what git prints in the checkout, None where there is neither git nor a checkout."""
    root = checkout()
    if root is None:
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout


def git_provenance() -> dict[str, Any]:
    """Return git commit and uncommitted changes, of the submitting checkout inside a job."""
    if submitted_file().is_file():
        return json.loads(submitted_file().read_text(encoding="utf-8"))
    status = git("status", "--porcelain")
    return {
        "git_commit": (git("rev-parse", "HEAD") or "").strip() or None,
        "git_dirty": None if status is None else bool(status),
        "git_diff": git("diff", "HEAD"),
    }


def code_provenance() -> dict[str, Any]:
    """Return git state (None where there is no checkout), lock hash and versions."""
    lock = lock_file()
    return {
        **git_provenance(),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
    }


def machine_provenance(device: torch.device) -> dict[str, Any]:
    """Return host and device of the process that trains."""
    cuda = device.type == "cuda"
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "device": torch.cuda.get_device_name(device) if cuda else platform.machine(),
        "threads": torch.get_num_threads(),
    }


def _files(folder: Path) -> list[Path]:
    """Return a source folder's files: what git does not ignore, or all; nothing hidden."""
    root = checkout()
    listed = git("ls-files", "-co", "--exclude-standard", "-z", str(folder)) if root else None
    if root and listed:
        paths = [root / name for name in listed.split("\0") if name]
    else:
        paths = list(folder.rglob("*"))
    found = []
    for path in sorted(set(paths)):
        inner = path.relative_to(folder).parts
        plain = not any(part.startswith(".") or part == "__pycache__" for part in inner)
        if plain and path.is_file() and not path.is_symlink():
            found.append(path)
    return found


def code_files() -> dict[str, Path]:
    """Return both packages' files by their place in the package, which is that of the wheel."""
    folders = {
        "feinfn": Path(feinfn.__file__).parent,
        "mhiflab": Path(mhiflab.__file__).parent,
        "mhiflab/experiments": experiments_dir(),
    }
    found = {
        f"{place}/{path.relative_to(folder).as_posix()}": path
        for place, folder in folders.items()
        for path in _files(folder)
    }
    return {**found, "mhiflab/requirements.lock": lock_file()}


def code_hash() -> str:
    """Return the SHA-256 of the Python files of both packages, equal for checkout and wheel."""
    digest = hashlib.sha256()
    for place, path in sorted(code_files().items()):
        if place.endswith(".py") and not place.startswith("mhiflab/experiments/"):
            digest.update(f"{place}:{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
