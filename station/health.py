"""Beats and faults: is each loop moving, and what is wrong at the moment?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

INSPECTS = "line"  # the loop without which no board is inspected


@dataclass(frozen=True, slots=True)
class Fault:
    """
    Something is wrong: a constant *code* (``broker_away``), what it means, and since when (UNIX time, s).

    *lasted_s* is how long it lasted, whatever was done to the clock; 0 until it has ended.
    """

    code: str
    detail: str
    since_s: float
    lasted_s: float = 0.0


class Health:
    """
    Gathers beats from the loops and faults from anywhere. Safe to call from any thread; never blocks on anything slow.

    *on_fault* is called with (fault, began) when a fault begins or ends, in the thread that noticed.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        on_fault: Callable[[Fault, bool], None] = lambda _fault, _began: None,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._on_fault = on_fault
        self._lock = threading.Lock()
        self._beats: dict[str, float] = {}
        self._limits_s: dict[str, float] = {}
        self._faults: dict[str, Fault] = {}
        self._began_s: dict[str, float] = {}  # the same by the monotonic clock
        self._failing: dict[str, str] = {}
        self.restart_wanted: str | None = None  # why only a start from the beginning helps

    def watch(self, loop: str, *, limit_s: float) -> None:
        """From now on *loop* must beat at least every *limit_s* seconds."""
        with self._lock:
            self._limits_s[loop] = limit_s
            self._beats[loop] = self._monotonic()

    def beat(self, loop: str) -> None:
        """*loop* moved just now."""
        self._beats[loop] = self._monotonic()  # one dict store: atomic, and the hot path stays free of locks

    def ages_s(self) -> dict[str, float]:
        """Seconds since the last beat of every watched loop."""
        now = self._monotonic()
        return {loop: now - self._beats[loop] for loop in list(self._limits_s)}

    def stalled(self) -> list[str]:
        """The loops that have not moved within their limit. Not empty: only a restart helps."""
        return [loop for loop, age_s in self.ages_s().items() if age_s > self._limits_s[loop]]

    def begin(self, code: str, detail: str) -> None:
        """Fault *code* is there. Saying it again only refreshes its detail."""
        with self._lock:
            known = self._faults.get(code)
            fault = Fault(code, detail, known.since_s if known else self._wall())
            self._faults[code] = fault
            self._began_s.setdefault(code, self._monotonic())
        if known is None:
            self._on_fault(fault, True)

    def end(self, code: str) -> None:
        """Fault *code* is gone. Saying it of a fault that is not there is fine."""
        with self._lock:
            fault = self._faults.pop(code, None)
            lasted_s = self._monotonic() - self._began_s.pop(code, 0.0)
        if fault is not None:
            self._on_fault(replace(fault, lasted_s=lasted_s), False)

    def faults(self) -> list[Fault]:
        """What is wrong at the moment, oldest first."""
        with self._lock:
            return sorted(self._faults.values(), key=lambda fault: fault.since_s)

    def cannot(self, what: str, why: str | None) -> None:
        """
        The station cannot inspect because of *what* (``ledger``, ``disk``, ``line``), or, with None, can again.

        This is what ``/readyz`` answers from; it is not a reason to restart.
        """
        with self._lock:
            if why is None:
                self._failing.pop(what, None)
            else:
                self._failing[what] = why

    def not_ready(self) -> dict[str, str]:
        """Why the station cannot inspect at the moment; empty when it can. A line that has stalled does not."""
        with self._lock:
            why = dict(self._failing)
        if INSPECTS in self.stalled():
            why[INSPECTS] = f"it has not moved for more than {self._limits_s[INSPECTS]:g} s"
        return why
