"""Leaves a server that does not answer alone for a while: waiting for it would cost each request half a second."""

from __future__ import annotations

import time
from collections.abc import Callable

AGAIN_S = 5.0


class Absence:
    """How long a server has been away. Any thread may call it: one more attempt than needed does no harm."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._again_s: float | None = None  # None: it is there

    @property
    def lasts(self) -> bool:
        """Whether it need not be asked now."""
        return self._again_s is not None and self._monotonic() < self._again_s

    def began(self) -> bool:
        """It did not answer. True: it did before."""
        new = self._again_s is None
        self._again_s = self._monotonic() + AGAIN_S
        return new

    def ended(self) -> bool:
        """It answered. True: it did not before."""
        was, self._again_s = self._again_s is not None, None
        return was
