"""How many threads numpy's and torch's products take: one each, while a call computes in several threads of its own."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class ProductThreads(Generic[T]):
    """A setting of the whole process that calls change for a while, restored though they overlap (in a web server).

    The first of them notes how it was; none takes another's one core for it.
    """

    def __init__(self, read: Callable[[], T], write: Callable[[T], None]):
        self._read, self._write = read, write
        self._lock, self._calls = threading.Lock(), 0

    def usual(self) -> T:
        """How it is while no call changes it."""
        with self._lock:
            return self._was if self._calls else self._read()

    @contextlib.contextmanager
    def restored(self) -> Iterator[T]:
        """Gives what is usual, and restores it at the end, for the calling thread, too."""
        with self._lock:
            if not self._calls:
                self._was = self._read()
            self._calls += 1
            was = self._was
        try:
            yield was
        finally:
            with self._lock:
                self._calls -= 1
                self._write(was)
