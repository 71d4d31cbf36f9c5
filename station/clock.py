"""Whether the wall clock is kept by someone (NTP, PTP): an event says so beside its time."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from pathlib import Path

TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
TIMEX_BYTES = 256  # struct timex is 208 bytes on 64-bit Linux; all zeros means: only tell
TIMESYNCD_MARK = Path("/run/systemd/timesync/synchronized")
ASK = (
    *("busctl", "--system", "get-property", "org.freedesktop.timedate1", "/org/freedesktop/timedate1"),
    *("org.freedesktop.timedate1", "NTPSynchronized"),
)
ASK_S = 2.0

_libc = ctypes.CDLL(None)


def kernel_synced() -> bool | None:
    """What the kernel says; None: it may not be asked (a sandbox that forbids setting the clock)."""
    state = _libc.adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    return None if state < 0 else bool(state != TIME_ERROR)


def systemd_synced() -> bool:
    """What systemd says, which asks the kernel for us, whoever keeps the clock. False where there is no systemd."""
    try:
        said = subprocess.run(ASK, capture_output=True, text=True, timeout=ASK_S, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.strip() == "b true"


class Clock:
    """
    The wall clock's keeper, as far as it can be known.

    ``look`` is for the housekeeping, and may take two seconds; ``synced`` takes microseconds.
    """

    def __init__(
        self,
        *,
        kernel: Callable[[], bool | None] = kernel_synced,
        systemd: Callable[[], bool] = systemd_synced,
        mark: Path = TIMESYNCD_MARK,
    ) -> None:
        self._kernel = kernel
        self._systemd = systemd
        self._mark = mark
        self._told = False

    def look(self) -> None:
        """Asks systemd, where neither the kernel may be asked nor systemd-timesyncd has left its mark."""
        self._told = self._kernel() is None and not self._mark.exists() and self._systemd()

    def synced(self) -> bool:
        """Whether the wall clock is synchronised; False when nobody says so."""
        known = self._kernel()
        return known if known is not None else self._mark.exists() or self._told
