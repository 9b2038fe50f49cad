"""MATLAB v5 files (MATLAB's -v6 and -v7, Octave, scipy), with axes in MATLAB's order.

They are parsed here because scipy's compiled reader crashes on some damaged ones. Source:
"MAT-File Format", The MathWorks, chapter 1 (level 5).
"""

import math
import os
import struct
import zlib
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import IO

import numpy as np

from feinfn.data.readers.array import Array, Index, check_size, reading

_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
_CLASSES |= {14: "i8", 15: "u8"}
_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8"}
_STORED |= {12: "i8", 13: "u8"}
_STRUCT, _MATRIX, _COMPRESSED, _COMPLEX = 2, 14, 15, 0x0800
_PART_BYTES = 2**16

Head = tuple[str, tuple[int, ...], np.dtype]
"""Name, shape and type of an array."""


def is_mat5(start: bytes) -> bool:
    """Return True for a v5 file, by its first bytes."""
    return start[124:128] in (b"\x00\x01IM", b"\x01\x00MI")


def mat5_arrays(path: Path) -> dict[str, Array]:
    """Return the real numeric arrays by name, those in structs as `struct.field`.

    Raises `UserError` if the file is damaged.
    """
    arrays = {}
    with reading(path, "MATLAB v5"), path.open("rb") as file:
        order = _byte_order(file)
        at, end = 128, path.stat().st_size
        while at < end:
            stream = _Stream(file, at, end, order)
            for name, shape, dtype in _heads(stream):
                arrays[name] = Array(
                    path=path,
                    key=name,
                    shape=shape,
                    dtype=dtype,
                    load=partial(_load, path, name, at),
                    axes="HWS" if len(shape) == 3 else "",
                    group=name.rpartition(".")[0],
                )
            at = stream.next_at
    return arrays


def _load(path: Path, name: str, at: int, index: Index) -> np.ndarray:
    """Read an array of the element at byte `at` in MATLAB's order of axes and MATLAB's type."""
    with reading(path, "MATLAB v5"), path.open("rb") as file:
        size = path.stat().st_size
        stream = _Stream(file, at, size, _byte_order(file))
        _, shape, dtype = next(head for head in _heads(stream) if head[0] == name)
        # MATLAB stores doubles that are small whole numbers in one byte each.
        check_size(path, name, shape, dtype.itemsize, 8 * size)
        stored, numbers = stream.element(8 * math.prod(shape))
        stream.close()
        array = np.frombuffer(numbers, stream.order + _STORED[stored])
        return array.astype(dtype).reshape(shape, order="F")[index]


def _byte_order(file: IO[bytes]) -> str:
    file.seek(0)
    return "<" if file.read(128)[126:] == b"IM" else ">"


class _Stream:
    """The bytes of one element of a file, decompressed as they are read."""

    def __init__(self, file: IO[bytes], at: int, end: int, order: str) -> None:
        """Start at byte `at` of a file of `end` bytes; raise `ValueError` if it ends after it."""
        self.file, self.order, self.at, self.inflate = file, order, 0, None
        file.seek(at)
        kind, size = struct.unpack(f"{order}II", file.read(8))
        self.next_at = at + 8 + size
        if self.next_at > end:
            raise ValueError(f"an element of {size} bytes at byte {at} ends after the file")
        if kind == _COMPRESSED:
            self.inflate = zlib.decompressobj()
        else:
            file.seek(at)

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, or fewer at the element's end."""
        self.at += count
        if self.inflate is None:
            return self.file.read(min(count, self.next_at - self.file.tell()))
        parts = []
        while count and not self.inflate.eof:
            packed = self.inflate.unconsumed_tail or self.file.read(
                min(_PART_BYTES, self.next_at - self.file.tell())
            )
            parts.append(self.inflate.decompress(packed, count))
            count -= len(parts[-1])
            if not packed and not parts[-1]:
                break
        return b"".join(parts)

    def skip_to(self, at: int) -> None:
        """Leave bytes out up to position `at` of the element."""
        if self.inflate is None:
            self.file.seek(max(at - self.at, 0), os.SEEK_CUR)
            self.at = max(at, self.at)
        while self.at < at:
            self.read(min(at - self.at, _PART_BYTES))

    def element(self, most: int = _PART_BYTES) -> tuple[int, bytes]:
        """Return type and bytes of the next element; raise `ValueError` if it is too long."""
        tag = self.read(8)
        kind, size = struct.unpack(f"{self.order}II", tag)
        if kind >> 16:  # up to four bytes are stored within the tag
            return kind & 0xFFFF, tag[4 : 4 + (kind >> 16)]
        if size > most:
            raise ValueError(f"an element of {size} bytes, more than {most}")
        content = self.read(size)
        self.skip_to(self.at + -size % 8)
        return kind, content

    def close(self) -> None:
        """Raise `ValueError` unless a compressed element ends where it should, undamaged."""
        while self.inflate and not self.inflate.eof:
            if not self.read(_PART_BYTES):
                raise ValueError("the compressed array does not end where it should")


def _heads(stream: _Stream, within: str = "") -> Generator[Head, None, int]:
    """Yield the heads of an element's arrays, each with the stream at its numbers.

    Return the position of the element's end.
    """
    kind, size = struct.unpack(f"{stream.order}II", stream.read(8))
    end = stream.at + size
    if kind != _MATRIX or not size:
        return end
    (word,) = struct.unpack(f"{stream.order}I", stream.element()[1][:4])
    shape = tuple(np.frombuffer(stream.element()[1], f"{stream.order}i4").tolist())
    own_name = stream.element()[1].decode("ascii")
    name, code = within or own_name, word & 0xFF
    if code == _STRUCT and math.prod(shape) == 1:
        (length,) = struct.unpack(f"{stream.order}i", stream.element()[1][:4])
        names = stream.element()[1]
        for i in range(0, len(names), length):
            field = names[i : i + length].partition(b"\0")[0].decode("ascii")
            stream.skip_to((yield from _heads(stream, f"{name}.{field}")))
    elif code in _CLASSES and not word & _COMPLEX:
        yield name, shape, np.dtype(_CLASSES[code])
    return end
