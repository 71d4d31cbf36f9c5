"""A process and all that it started, as /proc shows them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def with_children(pid: int) -> list[int]:
    """*pid*, its children and theirs."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(OSError):  # it has just ended
                found += [int(child) for child in task.read_text().split()]
    return found
