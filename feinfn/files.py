"""Writing files whole or not at all, HDF5 even on a full disk."""

import errno
import hashlib
import io
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py

from feinfn.errors import UserError


class _ErrorKeepingFile(io.FileIO):
    """A file that stores its first write error and ignores all later writes.

    HDF5 cannot close a file after a failed write: the process dies of a segmentation fault. So
    HDF5 is told that every write succeeded, and the error is raised after it has closed the file.
    """

    error: BaseException | None = None

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        """Write all of `data`, or store the error."""
        rest = memoryview(data)
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except BaseException as error:
            self.error = error
        return len(data)


def write_hdf5(path: Path, fill: Callable[[h5py.File], None], *, checked: bool = False) -> None:
    """Write the HDF5 file that `fill` fills, as `write_atomic` does.

    HDF5 1.10 reads it. `checked` selects the newest format that it knows, whose metadata carries
    checksums. Raises `UserError` if the disk is full or the folder is not writable.
    """
    library_versions = ("v110" if checked else "earliest", "v110")

    def write(partial: Path) -> None:
        with _ErrorKeepingFile(partial, "w+") as raw:
            try:
                with h5py.File(raw, "w", libver=library_versions) as file:
                    fill(file)
            except (OSError, RuntimeError):
                if raw.error is None:
                    raise
            if raw.error is not None:
                raise raw.error

    write_atomic(path, write)


class DamagedError(Exception):
    """A file does not hold the bytes that were written; the message says what is wrong."""


def _sync(path: Path) -> None:
    """Flush a file's bytes or a folder's names to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync folders.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


def _partial(path: Path) -> Path:
    """Return a new name for an unfinished file, also if processes of several machines write it."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")


def _add_name(path: Path, other: Path) -> None:
    """Give a file a second name in its folder, replacing any file of that name.

    The first name stays valid throughout, so that a file exists under it even after a crash.
    """
    link = _partial(other)
    try:
        link.hardlink_to(path)
    except OSError:
        # A file system without hard links.
        path.replace(other)
        return
    link.replace(other)
    # POSIX: renaming one name of a file to another name of the same file does nothing.
    with suppress(FileNotFoundError):
        link.unlink()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes to a file as `write_atomic` does."""
    write_atomic(path, lambda partial: partial.write_bytes(content))


def write_atomic(path: Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """Write a file through a temporary one in its folder, so that it is whole or absent.

    `write` fills the temporary file. An existing file is kept as `previous` if that is given.
    Raises `UserError` if the disk is full or the folder is not writable.
    """
    partial = _partial(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        _sync(partial)
        if previous and path.exists():
            _add_name(path, previous)
        partial.replace(path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:
        # torch and safetensors report a full disk with their own errors, which have no errno.
        number = getattr(error, "errno", getattr(error.__context__, "errno", None))
        if number in (errno.ENOSPC, errno.EDQUOT) or "space left" in str(error):
            raise UserError(
                f"{path}: no space left on the disk; free some or choose another place"
            ) from None
        if isinstance(error, OSError):
            raise UserError(f"{path}: cannot be written ({error})") from None
        raise
    finally:
        with suppress(OSError):
            partial.unlink()


STATE, BEST = "state.pt", "best.safetensors"
"""File names of a training's resumable state and of its best weights."""
