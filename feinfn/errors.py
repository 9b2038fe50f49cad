"""Errors with a meaning of their own, and what their texts share."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """Something the user can mend: the text says what, where, what was expected and what to do."""


class OutOfMemory(UserError):  # noqa: N818
    """A step did not fit the accelerator's memory; the same training in smaller parts may."""


class Preempted(Exception):  # noqa: N818
    """The process was asked to end and the training state is saved; not a failure."""


def nearest(found: str, valid: Iterable[str]) -> str:
    """Return `did you mean ...? ` for an error's text, empty where nothing valid is near."""
    close = get_close_matches(found, list(valid), n=1)
    return f"did you mean {close[0]!r}? " if close else ""
