"""Artifacts of a run: their names and files, tables of metrics, and arrays of pictures."""

import io
import os
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException

from feinfn.errors import UserError
from feinfn.metrics.label import CONVENTION, METRICS
from mhiflab.paths import path_of
from mhiflab.record import tag
from mhiflab.record.database.errors import explained, without_passwords
from mhiflab.record.store import Store

if TYPE_CHECKING:
    from feinfn.protocols.simulate import Inputs, Pair

IMAGES_FILE, BANDS_FILE = "metrics_test.csv", "metrics_bands.csv"
QUICKLOOK_FILE, ERROR_FILE = "quicklook.npz", "error.txt"
ROBUSTNESS_FILE, ROBUSTNESS_PICTURE = "robustness.csv", "robustness.png"
"""Artifacts of runs."""


class NotArchivedError(UserError):
    """Request for an artifact that archives do not hold."""


def has_artifact(store: Store, run_id: str, name: str) -> bool:
    """Return True if a run has a top-level artifact of this name."""
    with explained(store.uri):
        return any(item.path == name for item in store.client.list_artifacts(run_id))


def add_artifact(store: Store, run_id: str, path: Path) -> None:
    """Add a file to a finished run."""
    with explained(store.uri):
        store.client.log_artifact(run_id, str(path))


@contextmanager
def artifact_file(store: Store, run_id: str, name: str, folder_uri: str = "") -> Iterator[Path]:
    """Yield a run's artifact, to be read: a copy, or the file itself if its folder is given.

    `folder_uri` is where the run's artifacts lie. Raise `UserError` if the artifact is missing,
    `NotArchivedError` if the run's archive does not hold it.
    """
    local = path_of(folder_uri) if folder_uri else None
    # A copy by MLflow takes twenty milliseconds, and a table may need a thousand.
    if local and os.access(local / name, os.R_OK):
        yield local / name
        return
    with tempfile.TemporaryDirectory(prefix="mhiflab-", ignore_cleanup_errors=True) as folder:
        try:
            path = store.client.download_artifacts(run_id, name, folder)
        except (MlflowException, OSError):
            # The artifact is missing only if the store answers.
            with explained(store.uri):
                tags = store.client.get_run(run_id).data.tags
            if tag.ARCHIVED in tags and not has_artifact(store, run_id, name.split("/")[0]):
                raise NotArchivedError(
                    f"run {tags[tag.KEY]}: artifact {name} is not in its archive, which holds "
                    "numbers alone; use the record that it was exported from"
                ) from None
            raise UserError(
                f"run {run_id}: artifact {name} is missing from MLflow store "
                f"{without_passwords(store.uri)}; delete the run and run the "
                "study again with --repeat-lost"
            ) from None
        yield Path(path)


def read_numbers(path: Path, text: Collection[str]) -> pd.DataFrame:
    """Return a table from CSV; all columns but `text` hold numbers, and empty cells become NaN.

    Numbers are exactly as written; the parser of pandas may differ in the last bit.
    """
    frame = pd.read_csv(path, dtype=str, keep_default_na=False)
    for name in frame.columns.difference(list(text)):
        frame[name] = [float(value or "nan") for value in frame[name]]
    return frame


def read_images(path: Path) -> pd.DataFrame:
    """Return the table in `store.IMAGES_FILE`: a row for every image, method and convention."""
    return read_numbers(path, ("scene", "method", "protocol", "convention"))


DAMAGE = (AttributeError, BadZipFile, EOFError, KeyError, OSError, ValueError, zlib.error)
"""Errors of a damaged .npz file. `AttributeError` if it holds a single array instead of a list."""


class Pictures(Mapping[str, np.ndarray]):
    """Arrays of an .npz file, unpacked on access; raise `UserError` if one is damaged."""

    def __init__(self, content: bytes, who: str) -> None:
        """Open a file's bytes; errors name the run `who` that they are of."""
        self._who = who
        self._file = self._explained(lambda: np.load(io.BytesIO(content)))
        self._names = self._explained(lambda: dict.fromkeys(self._file.files))

    def _explained(self, load: Callable[[], Any]) -> Any:
        try:
            return load()
        except DAMAGE as error:
            raise UserError(
                f"{self._who}: found a damaged {QUICKLOOK_FILE} ({error}), expected the run's "
                "pictures; delete the run and run its study again "
                "with --repeat-lost"
            ) from None

    def __getitem__(self, key: str) -> np.ndarray:
        return self._explained(lambda: self._file[key])

    def get(self, key: str, default: Any = None) -> Any:
        """Return an array, or the default if the file has none of this name."""
        if key not in self:
            return default
        return self[key]

    def __contains__(self, key: object) -> bool:
        return key in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


CELL_COLUMNS = ["sigma_factor", "srf", "snr_db"]
"""Columns of the robustness table that identify a cell: one deviation from the protocol."""

TEXT_COLUMNS = ("srf", "convention", "scene", "protocol_hash")
"""Columns of the robustness table that hold texts."""

FUSED, UPSAMPLED = "fused", "upsampled"
"""Methods in a run's per-image table: the trained network, and the LMS that it starts from."""

SAME_IMAGE = 1e-4
"""Largest relative difference in a metric of one upsampled image between two devices."""

WITHOUT_REFERENCE = "without_reference"
"""Convention of the indices that need no reference."""

WITHOUT_REFERENCE_METRICS = ("d_lambda", "d_s", "qnr")
"""Printed metrics of this convention."""

FUSE_SECONDS, FUSE_MEMORY = "fuse_seconds", "fuse_memory_mib"
"""Metrics of a run: time and memory that fusing its test images took."""

WINDOW_PX = 96
"""Longest side of the window of the first test image that is kept with all its bands."""

WINDOW_STEPS = 2**16 - 1
"""Integer that stands for 1 in this window, whose values in [0, 1] are kept as integers."""


def metrics_of(convention: str) -> tuple[str, ...]:
    """Return the metrics that are printed for a convention."""
    return WITHOUT_REFERENCE_METRICS if convention == WITHOUT_REFERENCE else METRICS


def group_means(table: pd.DataFrame, by: list[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return the metrics' means by group, in the table's order; NaN if one of the values is."""
    groups = table.groupby(by, sort=False)[list(metrics)]
    return groups.mean().where(groups.count().eq(groups.size(), axis=0))


def usual_convention(images: pd.DataFrame) -> str:
    """Return a table's usual convention, or without a reference the one that needs none."""
    return CONVENTION if (images["convention"] == CONVENTION).any() else WITHOUT_REFERENCE


@dataclass(frozen=True)
class Window:
    """The middle of a run's first test image with all bands, in [0, 1]."""

    scene: str
    place: tuple[int, int]
    """Its first row and column in the image."""
    msi_MHW: np.ndarray
    lms_SHW: np.ndarray
    lr_hsi_Shw: np.ndarray
    reference_SHW: np.ndarray | None
    fused_SHW: np.ndarray
    wavelengths_nm: np.ndarray | None

    @property
    def inputs(self) -> "Inputs":
        """The inputs as a batch of one, a `Pair` if the image has a reference."""
        # Not above: records are read without torch.
        import torch

        from feinfn.protocols.simulate import Inputs, Pair

        arrays = self.msi_MHW, self.lms_SHW, self.lr_hsi_Shw
        msi, lms, lr_hsi = (torch.from_numpy(array)[None] for array in arrays)
        if self.reference_SHW is None:
            return Inputs(msi, lms, lr_hsi)
        return Pair(msi, lms, lr_hsi, torch.from_numpy(self.reference_SHW)[None])

    def pair(self, who: str) -> "Pair":
        """Return the inputs with their reference; raise `UserError` if there is none."""
        from feinfn.protocols.simulate import Pair

        if isinstance(inputs := self.inputs, Pair):
            return inputs
        raise UserError(
            f"{who}: found no reference of test image {self.scene}, expected one, which this "
            "figure compares with; choose a study of simulated pairs"
        )
