"""MATLAB v5 files, read here because scipy's compiled reader crashes on some damaged ones.

Source: "MAT-File Format", The MathWorks, chapter 1 (level 5).
"""

import math
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feinfn.data.readers.common import check_size, reading

_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_CLASSES |= {14: "i8", 15: "u8"}
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_STORED |= {12: "i8", 13: "u8"}
_MATRIX, _COMPRESSED, _COMPLEX = 14, 15, 0x0800
_HEAD_BYTES = 4096  # flags, dimensions and name of an array, with room to spare


def is_mat5(start: bytes) -> bool:
    """Tell a v5 file (MATLAB's -v6 and -v7, Octave, scipy) by its first bytes."""
    return start[124:128] in (b"\x00\x01IM", b"\x01\x00MI")


@dataclass(frozen=True)
class Variable:
    """A real array of a v5 file, its numbers unread."""

    shape: tuple[int, ...]
    dtype: np.dtype
    """The type MATLAB shows; the file may store small whole numbers in fewer bytes."""
    at: int
    """Where its element starts in the file."""


def variables(path: Path) -> dict[str, Variable]:
    """Return the real numeric arrays of a file by name; `UserError` for a damaged file."""
    with reading(path, "MATLAB v5"):
        return dict(_variables(path))


def _variables(path: Path) -> Iterator[tuple[str, Variable]]:
    end = path.stat().st_size
    with path.open("rb") as file:
        order = "<" if file.read(128)[126:] == b"IM" else ">"
        at = 128
        while at < end:
            file.seek(at)
            kind, size = struct.unpack(f"{order}II", file.read(8))
            if at + 8 + size > end:
                raise ValueError(f"an element of {size} bytes at byte {at} ends after the file")
            body = file.read(min(size, _HEAD_BYTES))
            if kind == _COMPRESSED:
                body = zlib.decompressobj().decompress(body, _HEAD_BYTES)
                kind, body = struct.unpack(f"{order}I", body[:4])[0], body[8:]
            if kind == _MATRIX and body:
                name, shape, code, _ = _array_head(body, order)
                if code in _CLASSES:
                    yield name, Variable(shape, np.dtype(_CLASSES[code]), at)
            at += 8 + size


def _array_head(body: bytes, order: str) -> tuple[str, tuple[int, ...], int, int]:
    """Return name, shape, class (0 for complex) of an array, and where its numbers start."""
    _, flags, at = _element(body, 0, order)
    (word,) = struct.unpack(f"{order}I", flags[:4])
    _, sizes, at = _element(body, at, order)
    shape = tuple(np.frombuffer(sizes, f"{order}i4").tolist())
    _, name, at = _element(body, at, order)
    return name.decode("ascii"), shape, 0 if word & _COMPLEX else word & 0xFF, at


def _element(body: bytes, at: int, order: str) -> tuple[int, bytes, int]:
    """Return type and bytes of the element at `at`, and where the next one starts."""
    kind, size = struct.unpack_from(f"{order}II", body, at)
    if kind >> 16:  # up to four bytes are stored within the tag
        return kind & 0xFFFF, body[at + 4 : at + 4 + (kind >> 16)], at + 8
    return kind, body[at + 8 : at + 8 + size], at + 8 + size + -size % 8


def load(path: Path, name: str, variable: Variable) -> np.ndarray:
    """Read a variable in MATLAB's order of axes, [rows, columns, ...], and type."""
    # MATLAB stores doubles that are small whole numbers in one byte each.
    itemsize = variable.dtype.itemsize
    check_size(path, name, variable.shape, itemsize, 8 * path.stat().st_size)
    with reading(path, "MATLAB v5"), path.open("rb") as file:
        order = "<" if file.read(128)[126:] == b"IM" else ">"
        file.seek(variable.at)
        kind, size = struct.unpack(f"{order}II", file.read(8))
        body = file.read(size)
        if kind == _COMPRESSED:
            most = math.prod(variable.shape) * itemsize + _HEAD_BYTES
            stream = zlib.decompressobj()
            body = stream.decompress(body, most)[8:]
            if not stream.eof:
                raise ValueError("the compressed array does not end where it should")
        stored, numbers, _ = _element(body, _array_head(body, order)[-1], order)
        array = np.frombuffer(numbers, order + _STORED[stored])
        return array.astype(variable.dtype).reshape(variable.shape, order="F")
