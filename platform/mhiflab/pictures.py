"""The arrays of a run's pictures, and what is said of a file of them that is damaged."""

import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from zipfile import BadZipFile

import numpy as np

from feinfn.errors import UserError

# A single array instead of an archive has no list of files.
DAMAGE = (AttributeError, BadZipFile, EOFError, KeyError, OSError, ValueError, zlib.error)


class Pictures(Mapping[str, np.ndarray]):
    """The arrays of an .npz file, unpacked when asked for; `UserError` for what is damaged."""

    def __init__(self, content: bytes, who: str, remedy: str) -> None:
        """Open the bytes of a file, of which errors say whose it is and what to do."""
        self._who, self._remedy = who, remedy
        with self._explained():
            self._file = np.load(io.BytesIO(content))
            self._names = set(self._file.files)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DAMAGE as error:
            raise UserError(
                f"{self._who}: found a damaged file ({error}), expected the run's pictures; "
                f"{self._remedy}"
            ) from None

    def __getitem__(self, key: str) -> np.ndarray:
        with self._explained():
            return self._file[key]

    def get(self, key: str, default: Any = None) -> Any:
        """Return an array, or the default where the file has none of the name."""
        if key not in self:
            return default
        return self[key]

    def __contains__(self, key: object) -> bool:
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.files)

    def __len__(self) -> int:
        return len(self._names)
