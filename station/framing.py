"""Cuts a stream of bytes into lines, whatever comes: half a line, a line that never ends, noise. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """
    What came since the start. *overlong*: lines without an end in their allowed length, which were dropped. *noise*:
    lines that nobody took, and halves of lines.
    """

    bytes: int = 0
    lines: int = 0
    overlong: int = 0
    noise: int = 0


class Lines:
    """
    Gathers bytes until their terminator. It holds at most *max_bytes*, however long nothing ends.

    A line that grows longer is dropped up to the next terminator: what follows begins clean. For ``\\r`` a ``\\n`` that
    follows it belongs to it, and the other way round, since many programs send both. Empty lines are no lines.
    """

    def __init__(self, terminator: bytes, *, max_bytes: int) -> None:
        self._terminator = terminator
        self._strip = b"\r\n" if terminator in {b"\r", b"\n"} else b""
        self._max_bytes = max_bytes
        self._kept = bytearray()
        self._dropping = False
        self.counts = Counts()

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that *data* completes, without their terminators."""
        self.counts.bytes += len(data)
        self._kept += data
        *whole, rest = self._kept.split(self._terminator)
        self._kept = rest
        found: list[bytes] = []
        for one in whole:
            if self._dropping:
                self._dropping = False  # the end of what was too long
            elif len(one) > self._max_bytes:
                self.counts.overlong += 1
            elif line := bytes(one.strip(self._strip)) if self._strip else bytes(one):
                found.append(line)
        if len(self._kept) > self._max_bytes:
            if not self._dropping:
                self.counts.overlong += 1
            self._dropping = True
            # The last byte may be the beginning of the terminator.
            del self._kept[: -max(len(self._terminator) - 1, 0) or len(self._kept)]
        self.counts.lines += len(found)
        return found

    def silence(self) -> None:
        """Nothing has come for too long: half a line is noise, and what comes next is another one."""
        if self._kept.strip(self._strip):  # the "\n" after a "\r" is no half line
            self.counts.noise += 1
        self.clear()

    def clear(self) -> None:
        """Forgets half a line: what comes next is from another connection."""
        self._kept.clear()
        self._dropping = False


class Chunks:
    """What came, as it came: for a protocol that has no lines, and frames its bytes by itself."""

    def __init__(self) -> None:
        self.counts = Counts()

    def feed(self, data: bytes) -> list[bytes]:
        self.counts.bytes += len(data)
        return [data]

    def silence(self) -> None:
        """Whoever frames the bytes knows what a silence means."""

    def clear(self) -> None:
        """There is nothing to forget."""
