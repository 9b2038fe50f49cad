"""Provenance of a result: code, lock file, library versions and machine."""

import hashlib
import json
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import feinfn
import mhiflab
from mhiflab.paths import checkout, experiments_dir, lock_file, submitted_file

LIBRARIES = ("torch", "ray", "mlflow", "numpy", "scipy", "h5py", "optuna", "mhiflab")
"""Packages whose versions are recorded."""


def code_provenance() -> dict[str, Any]:
    """Return git state (None without a checkout), hash of the lock file, and versions."""
    lock = lock_file()
    return {
        **git_provenance(),
        "lock_sha256": hashlib.sha256(lock.read_bytes()).hexdigest() if lock.is_file() else None,
        "versions": {name: version(name) for name in LIBRARIES},
        "python": platform.python_version(),
    }


def git_provenance() -> dict[str, Any]:
    """Return git commit and uncommitted changes; in a submitted job, those of its checkout."""
    if submitted_file().is_file():
        return json.loads(submitted_file().read_text(encoding="utf-8"))
    status = git("status", "--porcelain")
    return {
        "git_commit": (git("rev-parse", "HEAD") or "").strip() or None,
        "git_dirty": None if status is None else bool(status),
        "git_diff": git("diff", "HEAD"),
    }


def git(*words: str) -> str | None:
    """Return git's output in the checkout, None if git fails or there is no checkout."""
    root = checkout()
    if root is None:
        return None
    try:
        process = subprocess.run(
            ["git", "-C", str(root), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return process.stdout


def code_hash() -> str:
    """Return the SHA-256 of both packages' Python files, the same for checkout and wheel."""
    digest = hashlib.sha256()
    for place, folder in code_folders().items():
        for path in sorted(folder.rglob("*.py")):
            inner = path.relative_to(folder)
            # In a wheel, the studies lie inside the laboratory's folder.
            if "experiments" in (inner.parts[0], folder.name) or "/." in f"/{inner.as_posix()}":
                continue
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            digest.update(f"{place}/{inner.as_posix()}:{content}\n".encode())
    return digest.hexdigest()


def code_folders() -> dict[str, Path]:
    """Return the folders of both packages and of the shipped studies, by their place in a wheel."""
    return {
        "feinfn": Path(feinfn.__file__).parent,
        "mhiflab": Path(mhiflab.__file__).parent,
        "mhiflab/experiments": experiments_dir(),
    }
