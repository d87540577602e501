"""Waiting for something that another process does."""

import time
from collections.abc import Callable


def eventually[T](look: Callable[[], T], good: Callable[[T], bool], timeout_seconds: float = 10) -> T:
    """What `look` returns once `good` accepts it. Raises AssertionError with the last value when that never happens."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        value = look()
        if good(value):
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"after {timeout_seconds} s still {value!r}")
        time.sleep(0.02)
