"""Training states that survive a crash: two generations, each with a checksum.

A state starts with a fixed line and the SHA-256 of the rest, so that a damaged file is never read
as a state.
"""

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from feinfn.errors import UserError
from feinfn.files import DamagedError, write_atomic

MAGIC = b"feinfn training state\n"
"""First line of a state."""

HEADER = len(MAGIC) + hashlib.sha256().digest_size
"""Bytes before the payload: the first line and the checksum."""


def previous_state(path: Path) -> Path:
    """Return the path of the generation before a state."""
    return path.with_suffix(".previous.pt")


class _HashingFile:
    """A file that hashes the bytes written to it, so that the SHA-256 needs no copy of them."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.sum = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sum.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Save tensors and plain values with a checksum; the earlier state becomes the previous one."""

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            file.write(bytes(HEADER))
            hashing = _HashingFile(file)
            torch.save(state, hashing)  # type: ignore[arg-type]
            file.seek(0)
            file.write(MAGIC + hashing.sum.digest())

    write_atomic(path, write, previous_state(path))


def read_state(path: Path) -> bytes:
    """Return the verified payload of a state for `parse_state`.

    Raises `DamagedError`, or `UserError` if the file may not be read.
    """
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
    """Return the newer intact generation of a state; None if there is none.

    A damaged file is renamed, so that it never replaces an intact one, and reported to `warn`.
    """
    damage, payload, outcome = [], None, "training starts from the beginning"
    for file in (path, previous_state(path)):
        if payload is None and file.is_file():
            try:
                payload, outcome = read_state(file), f"training continues from {file.name}"
            except DamagedError as error:
                renamed = file.replace(file.with_name(f"{file.name}.damaged"))
                damage.append(f"{file} {error} and was put aside as {renamed.name}")
    if damage:
        warn(f"{'; '.join(damage)}; {outcome}")
    return payload


def parse_state(payload: bytes, device: torch.device, path: Path) -> dict[str, Any]:
    """Return a verified state; raise `UserError` if an incompatible version of torch wrote it."""
    try:
        return torch.load(io.BytesIO(payload), map_location=device, weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{path}: is intact but cannot be read ({str(error).splitlines()[0]}); continue with "
            "the version of torch that wrote it, or move it away to start from the beginning"
        ) from None


def epochs_begun(state: dict[str, Any]) -> int:
    """Return the number of epochs of which a training state has taken at least one step."""
    return state.get("progress", [0])[0] + (len(state.get("losses", ())) > 0)
