"""Tries the decoding of a file in a process of its own: what the station ended in may be what ended it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable

import structlog

from station.errors import StationError
from station.picture import decode

log = structlog.get_logger(__name__)

WITHIN_S = 60.0
TURN_S = 0.2
BEGUN = b"decoding"


class TrialStoppedError(StationError):
    """The station was stopped first: nothing is known of the file."""


def trial(data: bytes, *, stopped: Callable[[], bool], within_s: float = WITHIN_S) -> str | None:
    """
    Why the decoder must not be let near *data* again; None: it survived it, whether it took it or not.

    Raises TrialStoppedError as soon as *stopped*.
    """
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        deadline_s = time.monotonic() + within_s
        said = _answer(child, data)
        while said is None:
            if stopped():
                child.kill()
                raise TrialStoppedError("the station was stopped while a file was tried")
            if time.monotonic() >= deadline_s:
                child.kill()
                return f"the station ended during this file, and decoding it takes more than {within_s:g} s"
            said = _answer(child, b"")  # what is left of it goes on being sent
    if child.returncode == 0:
        return None
    if said != BEGUN:  # it failed before it came to the file, which is not to blame
        log.error("trial failed", status=child.returncode)
        return None
    how = signal.Signals(-child.returncode).name if child.returncode < 0 else f"exit status {child.returncode}"
    return f"the decoder crashes on it ({how}), and the station did once"


def _answer(child: subprocess.Popen[bytes], data: bytes) -> bytes | None:
    """What the child said until it ended; None: it goes on."""
    try:
        return child.communicate(data, timeout=TURN_S)[0]
    except subprocess.TimeoutExpired:
        return None


if __name__ == "__main__":
    tried = sys.stdin.buffer.read()
    signal.alarm(int(2 * WITHIN_S))  # should whoever waits for the answer be gone
    sys.stdout.buffer.write(BEGUN)
    sys.stdout.flush()
    decode(tried)
