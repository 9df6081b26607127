"""One supervisor per data folder. The kernel gives the lock back when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class AlreadyRunningError(Exception):
    """Another supervisor holds the lock."""


@contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock. Raises AlreadyRunningError at once when somebody else does."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunningError(str(path)) from error
        yield


def is_held(path: Path) -> bool:
    """Whether a supervisor lives."""
    if not path.exists():
        return False
    try:
        with exclusive(path):
            return False
    except AlreadyRunningError:
        return True
