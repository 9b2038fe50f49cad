"""Errors with a meaning of their own."""


class UserError(ValueError):
    """Something the user can mend: the text says what, where, what was expected and what to do."""


class OutOfMemory(UserError):  # noqa: N818
    """A step did not fit the accelerator's memory; the same training in smaller parts may."""


class Preempted(Exception):  # noqa: N818
    """The process was asked to end and the training state is saved; not a failure."""
