"""Runs a loop in a thread, runs it again after a failure, and stops it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from station.errors import LedgerDamagedError, LedgerError, SourceError, StationError
from station.health import Health
from station.types import Stop

log = structlog.get_logger(__name__)

PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0)  # the pause after the first, second, ... failure in a row; the last one stays
HOPELESS = 5  # failures in a row, without one unit of work between them, after which the station is not ready


class Worker:
    """
    One supervised loop: *run* is called with a Stop and returns when it is set. After an exception it is run again.

    While it waits out a pause the worker beats for its loop, since a restart of the process would not help.
    *run* calls ``worked`` whenever it finished a unit of work: failures are counted from there.
    """

    def __init__(
        self, name: str, run: Callable[[Stop], None], *, health: Health, on_restart: Callable[[str], None]
    ) -> None:
        self.name = name
        self._run = run
        self._health = health
        self._on_restart = on_restart
        self._stop = threading.Event()
        self._failures = 0
        self._said: str | None = None  # of the last failure, since the loop last worked
        self._thread = threading.Thread(target=self._supervise, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def worked(self) -> None:
        """A unit of work is done: the loop is well."""
        if self._failures:
            self._failures = 0
            self._said = None
            self._health.cannot(self.name, None)
            self._health.end(f"{self.name}_failing")

    def stop(self, *, within_s: float) -> bool:
        """Asks the loop to end and waits for it. False: it did not end in time."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(within_s)
        return not self._thread.is_alive()

    def _supervise(self) -> None:
        while not self._stop.is_set():
            try:
                self._run(self._stop)
                if not self._stop.is_set():  # or it would be run again at once, and again
                    raise RuntimeError("the loop ended without being asked to")  # noqa: TRY301  # a failure like any other
            except Exception as error:  # noqa: BLE001, PERF203  # the one place: whatever it was, the loop is run again
                self._failed(error)
                self._pause()

    def _failed(self, error: Exception) -> None:
        self._failures += 1
        self._on_restart(self.name)
        if isinstance(error, LedgerDamagedError):
            self._health.restart_wanted = str(error)
        # What the station knows tells what to do; only what nobody expected needs to show where it came from.
        unexpected = None if isinstance(error, StationError) else error
        said = f"{type(error).__name__}: {error}"
        # A share that is away all night is one line, not six a minute: the fault lasts, and the counter counts.
        tell = log.debug if said == self._said else log.error
        self._said = said
        tell("loop failed", loop=self.name, failures=self._failures, error=str(error), exc_info=unexpected)
        self._health.begin(f"{self.name}_failing", str(error) or type(error).__name__)
        if self._failures >= HOPELESS or isinstance(error, LedgerError | SourceError):
            self._health.cannot(self.name, f"failed {self._failures} times: {error}")

    def _pause(self) -> None:
        left_s = PAUSES_S[min(self._failures, len(PAUSES_S)) - 1]
        while left_s > 0 and not self._stop.wait(min(left_s, 1.0)):
            self._health.beat(self.name)
            left_s -= 1.0
