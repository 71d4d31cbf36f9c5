"""The barcode scanner: one code belongs to the next trigger, and to no other."""

from __future__ import annotations

import re
import threading

import structlog

from station.health import Health
from station.types import Port

log = structlog.get_logger(__name__)

MAX_CODE = 128
WARN_EVERY_S = 10.0
FAULT = "serial_missing"


class Scanner:
    """
    Hears codes, and gives each to the first trigger that comes within *window_s* after it.

    *pattern* must match the whole line; its group ``serial``, else all of it, is the code. *no_read* are the texts by
    which a scanner says that it saw none. With *required* a trigger without a code is a fault, until one has its code.
    """

    def __init__(
        self,
        *,
        pattern: re.Pattern[str],
        no_read: tuple[str, ...],
        window_s: float,
        required: bool,
        health: Health,
    ) -> None:
        self._pattern = pattern
        self._no_read = frozenset(no_read)
        self._window_s = window_s
        self._required = required
        self._health = health
        self._lock = threading.Lock()
        self._code: tuple[str, float] | None = None
        self.unused = 0  # codes that no trigger came for
        self._warned_s = float("-inf")

    def listen(self, port: Port) -> None:
        """Last of all who listen on *port*: a line that is a trigger, or an acknowledgement, is no barcode."""
        port.listen(self._on_line)

    def code_for(self, at_s: float) -> str | None:
        """The code for a trigger of that moment (``time.monotonic``). It is given once."""
        with self._lock:
            code, self._code = self._code, None
        if code is not None and not 0 <= at_s - code[1] <= self._window_s:
            self._drop(code[0], "too old", at_s)
            code = None
        if code is not None:
            self._health.end(FAULT)
            return code[0]
        if self._required:
            self._health.begin(
                FAULT,
                f"a trigger came and no barcode in the {self._window_s:g} s before it: look at the scanner, or set "
                "[scanner] required = false",
            )
        return None

    def _on_line(self, line: bytes, at_s: float) -> bool:
        text = "".join(one for one in line.decode("utf-8", "replace") if one.isprintable()).strip()
        if text in self._no_read:
            with self._lock:
                self._code = None
            log.info("barcode not read", said=text)
            return True
        match = self._pattern.fullmatch(text)
        if match is None or not text or len(text) > MAX_CODE or "�" in text:
            return False
        code = match.groupdict().get("serial") or text
        with self._lock:
            earlier, self._code = self._code, (code, at_s)
        if earlier is not None:
            self._drop(earlier[0], "another one came before a trigger did", at_s)
        return True

    def _drop(self, code: str, why: str, at_s: float) -> None:
        self.unused += 1
        if at_s - self._warned_s >= WARN_EVERY_S:  # noise can be full of codes, and must not fill the log
            self._warned_s = at_s
            log.warning("barcode not used", code=code, reason=why, unused=self.unused)
