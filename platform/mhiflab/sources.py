"""Where tables and figures take runs and data from: the lab's record, or an archive of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from feinfn.config import DataConfig
from feinfn.data.source import resolve_data, survey
from feinfn.errors import UserError
from mhiflab.archive import archived_store, known_data
from mhiflab.paths import Lab
from mhiflab.study.spec import DataAccess
from mhiflab.tracking import Store, recorded_store


def data_of(record: Path | None) -> DataAccess:
    """Return how a plan learns about its data: from an archive, or without one from scenes."""
    return known_data(record) if record else DataAccess(_resolve, survey)


def _resolve(config: DataConfig) -> DataConfig:
    try:
        return resolve_data(config)
    except UserError as error:
        if config.source == "sample" or Path(config.source).exists():
            raise
        raise UserError(
            f"{error}; run this in the folder that the path starts from, or write the runs with "
            "mhiflab export where the data are, and give that folder with --record"
        ) from None


@contextmanager
def runs_of(record: Path | None, lab: Lab) -> Iterator[Store]:
    """Yield a store with the runs of an archive, or without one the lab's; raises `UserError`."""
    if record is None:
        yield recorded_store(lab)
        return
    with TemporaryDirectory(prefix="mhiflab-") as place:
        yield archived_store(record, Lab(Path(place)))
