"""Waiting for a condition: the only way in which the tests wait."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(condition: Callable[[], object], *, within_s: float = 30.0, what: str = "the condition") -> None:
    """Returns as soon as *condition* is true; fails the test after *within_s*, which is a limit and not a measure."""
    deadline_s = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise AssertionError(f"{what} did not come true within {within_s:g} s")
        time.sleep(0.01)
