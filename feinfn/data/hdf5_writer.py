"""Files that are written whole or not at all, HDF5 also on a full disk."""

import io
from collections.abc import Callable
from pathlib import Path

import h5py

from feinfn.checkpoint import write_atomic


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
