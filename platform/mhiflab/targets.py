"""Whether files can be written, known before the work whose result they hold."""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from feinfn.errors import UserError
from mhiflab.paths import nearest_existing


def check_targets(targets: Iterable[Path], inputs: Iterable[Path] = (), force: bool = True) -> None:
    """Raise `UserError` for a file that cannot be written, is an input, or exists without `force`.

    Nothing is left on the disk, no folder made.
    """
    given = list(inputs)
    for target in targets:
        try:
            _check_place(target)
            exists = target.exists()
        except OSError as error:
            raise UserError(
                f"{target}: cannot be written ({error.strerror}), expected a file in a "
                "folder that may be written to; choose another name"
            ) from None
        for one in given:
            inside = one.is_dir() and target.resolve().is_relative_to(one.resolve())
            if inside or (exists and one.exists() and target.samefile(one)):
                raise UserError(
                    f"--out: found {target}, which would {'change' if inside else 'overwrite'} the "
                    f"input {one}, expected another file; choose another name"
                )
        if exists and not force:
            raise UserError(
                f"{target}: found a file there, expected none; choose another name, or overwrite "
                "it with --force"
            )


def _check_place(target: Path) -> None:
    """Raise `UserError` for a folder, `OSError` where no file of this name can be made."""
    if target.is_dir():
        raise UserError(
            f"{target}: found a folder, expected a file; move it, or choose another name"
        )
    # The longer name that it has while it is written.
    (target.parent / f".{target.name}.{os.getpid()}.partial").exists()
    folder = nearest_existing(target.parent)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: found a file, expected a folder for {target.name}; move it, or choose "
            "another name"
        )
    # To try is the only sure way: modes say nothing of read-only file systems, nor to root.
    with tempfile.TemporaryFile(dir=folder):
        pass
