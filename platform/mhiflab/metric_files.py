"""Tables of metrics, read as they were written."""

from collections.abc import Collection
from pathlib import Path

import pandas as pd


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
