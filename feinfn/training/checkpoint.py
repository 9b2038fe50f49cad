"""Files that survive a crash: written beside their target, synced, then renamed over it.

A training state is kept in two generations. It starts with a fixed line and the SHA-256 of the
rest, so that a file that is not what was written is never read as one.
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

HEADER = len(MAGIC) + hashlib.sha256().digest_size


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
