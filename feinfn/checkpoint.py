"""Files that survive a crash: written beside their target, synced, then renamed over it.

A training state is kept in two generations. It starts with a fixed line and the SHA-256 of the
rest, so that a file that is not what was written is never read as one.
"""

import errno
import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from feinfn.errors import UserError

MAGIC = b"feinfn training state\n"
HEADER = len(MAGIC) + hashlib.sha256().digest_size


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


def previous_state(path: Path) -> Path:
    """Return where the generation before a state lies."""
    return path.with_suffix(".previous.pt")


class _Summed:
    """A file that keeps the SHA-256 of what is written to it, so that no copy is needed for it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sum = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sum.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Save tensors and plain values with a checksum; the state before it is kept as previous."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            file.write(bytes(HEADER))
            summed = _Summed(file)
            torch.save(state, summed)  # type: ignore[arg-type]
            file.seek(0)
            file.write(MAGIC + summed.sum.digest())

    write_atomic(path, write, previous_state(path))


def read_state(path: Path) -> bytes:
    """Return what `parse_state` reads, verified; raise `DamagedError`, `UserError` if forbidden."""
    try:
        with path.open("rb") as file:
            head, payload = file.read(HEADER), file.read()
    except PermissionError as error:
        raise UserError(f"{path}: may not be read ({error}); give access to it") from None
    except OSError as error:
        raise DamagedError(f"cannot be read ({error})") from None
    if not head:
        raise DamagedError("is empty")
    if not head.startswith(MAGIC):
        raise DamagedError("is no training state")
    if hashlib.sha256(payload).digest() != head[len(MAGIC) :]:
        raise DamagedError("does not fit its checksum (cut short, or its bytes changed)")
    return payload


def newest_state(path: Path, warn: Callable[[str], None]) -> bytes | None:
    """Return the newer intact generation of a state, None where there is none.

    A damaged one is put aside, so that it never takes an intact one's place, and told to `warn`.
    """
    told, found, then = [], None, "training starts from the beginning"
    for file in (path, previous_state(path)):
        if found is None and file.is_file():
            try:
                found, then = read_state(file), f"training continues from {file.name}"
            except DamagedError as error:
                aside = file.replace(file.with_name(f"{file.name}.damaged"))
                told.append(f"{file} {error} and was put aside as {aside.name}")
    if told:
        warn(f"{'; '.join(told)}; {then}")
    return found


def parse_state(payload: bytes, device: torch.device, path: Path) -> dict[str, Any]:
    """Return a verified state; raise `UserError` where another version of torch wrote it."""
    try:
        return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: is intact but cannot be read ({str(error).splitlines()[0]}); continue with "
            "the version of torch that wrote it, or move it away to start from the beginning"
        ) from None


def epochs_begun(state: dict[str, Any]) -> int:
    """Return how many epochs a training state has taken steps of."""
    return state.get("progress", [0])[0] + (len(state.get("losses", ())) > 0)


def _header(config: Any, notes: dict[str, Any]) -> dict[str, str]:
    return {"config": json.dumps(asdict(config)), "notes": json.dumps(notes)}


def save_weights(
    path: Path, weights: dict[str, Tensor], config: Any, notes: dict[str, Any]
) -> None:
    """Save weights as safetensors, with the model's configuration and notes in the header."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    header = _header(config, notes)
    write_atomic(path, lambda p: save_file(tensors, p, metadata=header))


def check_weights(
    path: Path, weights: dict[str, Tensor], config: Any, notes: dict[str, Any]
) -> bool:
    """Return whether a file holds these weights, False if others with notes of their own.

    Raises `DamagedError` where it is missing, cannot be read, or differs under the same notes.
    """
    try:
        with safe_open(path, "pt") as file:
            if file.metadata() != _header(config, notes):
                return False
        found = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DamagedError(f"cannot be read ({error})") from None
    if found.keys() != weights.keys() or any(
        not torch.equal(tensor, weights[name]) for name, tensor in found.items()
    ):
        raise DamagedError("holds other weights than were written")
    return True
