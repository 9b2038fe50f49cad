"""How often Python looks for garbage."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def rare_collections() -> Iterator[None]:
    """Look seldom for garbage while libraries and records are read.

    They are a million objects that stay, and looking through them again and again took a quarter of
    the time of a command. Only there: Ray frees the processes of a trial that was stopped when
    their last, often circular, reference is collected.
    """
    usual = gc.get_threshold()
    gc.set_threshold(200_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*usual)
