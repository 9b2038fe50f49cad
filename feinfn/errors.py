"""Errors that callers tell apart, and the hint their messages share."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A mistake the user can fix.

    The message says where, what was found, what was expected and what to do. `field` is the setting
    or parameter at fault, if it is one, behind its file if it stands in one; it precedes the
    message, and the command line puts its option there.
    """

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field

    def __str__(self) -> str:
        message = super().__str__()
        return f"{self.field}: {message}" if self.field else message


class OutOfMemory(UserError):  # noqa: N818
    """A step did not fit into accelerator memory; the same training in smaller parts may fit."""


class Preempted(Exception):  # noqa: N818
    """The process was asked to stop and has saved its training state; not a failure."""


def require(condition: bool, field: str, found: object, expected: str) -> None:
    """Raise `UserError` that names field, value found and value expected, unless `condition`."""
    if not condition:
        raise UserError(f"found {found!r}, expected {expected}", field)


def require_one_of(field: str, name: str, valid: Iterable[str], among: str = "one of ") -> None:
    """Raise `UserError` that lists the valid names and suggests the nearest, unless it is one."""
    names = list(valid)
    if name not in names:
        hint = nearest(str(name), names)
        raise UserError(f"found {name!r}, {hint}expected {among}{', '.join(names)}", field)


def nearest(found: str, valid: Iterable[str]) -> str:
    """Return `did you mean ...? ` for an error message, empty if no valid name is close."""
    by_lower = {name.lower(): name for name in valid}
    close = get_close_matches(found.lower(), by_lower, n=1)
    return f"did you mean {by_lower[close[0]]!r}? " if close else ""
