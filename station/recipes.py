"""Which recipe judges a board: by its serial, else as a command said, else the plain one."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from station.durable import read_kept, write_kept
from station.errors import CommandError
from station.inspection import Bench
from station.types import Frame

log = structlog.get_logger(__name__)

KEY = "recipe"
KEEP_S = 600.0  # how long a choice that is over is remembered, for triggers that wait: no answer takes so long


class Recipes:
    """
    The benches of a station's recipes, by name. ``use`` may be called from any thread.

    *plain* is the name of ``[recipe]``. *patterns* are tried in their order on a board's serial. *kept* is the file
    that remembers what a command chose: it outlives a restart, which nobody at the line notices.
    """

    def __init__(
        self,
        benches: Mapping[str, Bench],
        *,
        plain: str,
        patterns: Sequence[tuple[re.Pattern[str], str]] = (),
        kept: Path,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._benches = benches
        self._patterns = tuple(patterns)
        self._kept = kept
        self._monotonic = monotonic
        self._lock = threading.Lock()
        chosen = read_kept(kept).get(KEY, plain)
        if not isinstance(chosen, str) or chosen not in benches:
            log.warning("chosen recipe forgotten", recipe=str(chosen), reason="it is not configured any more")
            chosen = plain
            with suppress(OSError):  # then it is forgotten again at the next start
                write_kept(kept, {KEY: plain})
        elif chosen != plain:
            log.info("recipe in force", recipe=chosen, reason="a command chose it in an earlier run")
        self._choices = deque([(float("-inf"), chosen)])  # since when, and which

    @property
    def in_force(self) -> str:
        """What judges a board that comes now, unless its serial says otherwise."""
        return self._choices[-1][1]

    def choose(self, frame: Frame) -> Bench:
        """The bench for *frame*; a command is for boards whose trigger came after it, and not for those that wait."""
        if frame.board_serial is not None:
            for pattern, name in self._patterns:
                if pattern.search(frame.board_serial):
                    return self._benches[name]
        choices = [*self._choices]
        if frame.trigger is None:
            return self._benches[choices[-1][1]]
        asked_s = frame.trigger.at_s
        return self._benches[next((name for since_s, name in reversed(choices) if since_s <= asked_s), choices[0][1])]

    def use(self, name: str) -> dict[str, Any]:
        """From the next board on *name* judges what no serial decides. Raises CommandError: unknown, or not kept."""
        if name not in self._benches:
            raise CommandError(f'there is no recipe "{name[:64]}"; known are {", ".join(sorted(self._benches))}')
        with self._lock:
            try:
                write_kept(self._kept, {KEY: name})
            except OSError as error:  # it must outlive this run: the next start would judge by another one
                raise CommandError(f"the choice cannot be kept on disk ({error.strerror}): the recipe stays") from None
            before, now_s = self.in_force, self._monotonic()
            if name != before:
                self._choices.append((now_s, name))
            while len(self._choices) > 1 and self._choices[1][0] < now_s - KEEP_S:
                self._choices.popleft()
        if name != before:
            log.info("recipe changed", recipe=name, before=before)
        return {"recipe": name, "before": before}
