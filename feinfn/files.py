"""Files that are written whole or not at all, HDF5 also on a full disk."""

import errno
import hashlib
import io
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import h5py

from feinfn.errors import UserError


class _Patient(io.FileIO):
    """A file that keeps its first failed write to itself and swallows what follows.

    HDF5 cannot close a file that it could not write (the process dies of a segmentation fault), so
    it is told that all went well, and the error is raised once it has let go of the file.
    """

    error: BaseException | None = None

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        """Write all of `data`, or keep the error."""
        rest = memoryview(data)
        try:
            while rest and self.error is None:
                rest = rest[super().write(rest) :]
        except BaseException as error:
            self.error = error
        return len(data)


def write_hdf5(path: Path, fill: Callable[[h5py.File], None], *, checked: bool = False) -> None:
    """Write the HDF5 file that `fill` fills; raise `UserError` where that is not possible.

    `checked` takes the file format of HDF5 1.10, whose structure carries checksums.
    """
    form = ("v110", "v110") if checked else None

    def write(partial: Path) -> None:
        with _Patient(partial, "w+") as raw:
            try:
                with h5py.File(raw, "w", libver=form) as file:
                    fill(file)
            except (OSError, RuntimeError):
                if raw.error is None:
                    raise
            if raw.error is not None:
                raise raw.error

    write_atomic(path, write)


class DamagedError(Exception):
    """The bytes of a file are not those that were written; the text says what is wrong."""


def _sync(path: Path) -> None:
    """Bring a file's bytes or a folder's names to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        # Some network file systems cannot sync folders.
        if error.errno != errno.EINVAL:
            raise
    finally:
        os.close(number)


def _name_also(path: Path, other: Path) -> None:
    """Give a file another name in its folder, in place of the file that has it.

    The first name stays, so that whoever looks, also after a cut, finds a file there.
    """
    link = other.with_name(f".{other.name}.{os.getpid()}.partial")
    try:
        with suppress(FileNotFoundError):
            link.unlink()
        link.hardlink_to(path)
    except OSError:
        # A file system without hard links.
        path.replace(other)
        return
    link.replace(other)
    # Two names of one file are left as they are by a rename.
    with suppress(FileNotFoundError):
        link.unlink()


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file as `write_atomic` does."""
    write_atomic(path, lambda partial: partial.write_bytes(content))


def write_atomic(path: Path, write: Callable[[Path], object], previous: Path | None = None) -> None:
    """Write a file through a temporary one in its folder; nothing half-written is left behind.

    The file that was there becomes `previous` where that is given. Raises `UserError` where the
    disk is full or the folder is not writable.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        _sync(partial)
        if previous and path.exists():
            _name_also(path, previous)
        partial.replace(path)
        _sync(path.parent)
    except (OSError, RuntimeError) as error:
        # torch and safetensors report a full disk as errors of their own, without errno.
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
