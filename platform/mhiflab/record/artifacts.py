"""Artifacts of a run: names, tables of metrics, and arrays of pictures."""

import io
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd

from feinfn.errors import UserError
from feinfn.metrics.evaluation import METRICS


def read_numbers(path: Path, text: Collection[str]) -> pd.DataFrame:
    """Return a table that was written as CSV; all columns but `text` hold numbers, empty ones NaN.

    Numbers are those that were written: the reader of pandas may differ in the last bit.
    """
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in frame.columns.difference(list(text)):
        frame[name] = [float(value or "nan") for value in frame[name]]
    return frame


def read_images(path: Path) -> pd.DataFrame:
    """Return a run's `tracking.IMAGES_FILE`: one row an image, method and convention."""
    return read_numbers(path, ("scene", "method", "protocol", "convention"))


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


CELL = ["sigma_factor", "srf", "snr_db"]

TEXT = ("srf", "convention", "scene", "protocol_hash")

FUSED, UPSAMPLED = "fused", "upsampled"
"""Methods of a run's per-image table: the trained network, and the LMS it starts from."""

SAME_IMAGE = 1e-4
"""Relative difference in a metric of one upsampled image that two devices may make, and no more."""

WITHOUT_REFERENCE = "without_reference"
"""The convention of indices that need no reference."""

WITHOUT_REFERENCE_METRICS = ("d_lambda", "d_s", "qnr")

FUSE_SECONDS, FUSE_MEMORY = "fuse_seconds", "fuse_memory_mib"
"""Metrics of a run: what fusing its test images took."""

WINDOW_PX = 96
"""Longest side of the part of the first test image that is kept with all its bands."""

WINDOW_STEPS = 2**16 - 1
"""Numbers in [0, 1] of that part are kept as integers up to this one."""


def metrics_of(convention: str) -> tuple[str, ...]:
    """Return the printed metrics of a convention."""
    return WITHOUT_REFERENCE_METRICS if convention == WITHOUT_REFERENCE else METRICS
