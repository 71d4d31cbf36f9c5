"""Which files of an inbox that is only read have been inspected: the ledger knows, and nothing is written there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from station.sources.claims import Claim, Leftover
from station.sources.names import Stamp
from station.types import Recorded

_NAMESPACE = uuid.UUID("5d0b3c36-6d4b-5e0f-9f3b-0f4f2d1f9a11")  # made once for this purpose


class Marks:
    """
    The claims of a station that leaves its files where they are.

    A board's event id is made of its file's path, inode, size and modification time, so that a restart finds in the
    ledger what was inspected, and a file that was written anew is a new board. Nothing tells how often a file was in
    flight when the station crashed: a picture that crashes a decoder is tried again at every start.
    """

    def __init__(self, inbox: Path, *, recorded: Callable[[str], Recorded | None], now: Callable[[], datetime]) -> None:
        self._inbox = inbox
        self._recorded = recorded
        self._now = now
        self._seen: dict[str, Stamp] = {}

    def open(self) -> list[Leftover]:
        return []

    def knows(self, relative: str, stamp: Stamp) -> bool:
        """Whether this version of the file has been taken, or was found on record, in this run."""
        return self._seen.get(relative) == stamp

    def on_record(self, relative: str, stamp: Stamp) -> bool:
        """Whether the ledger has this version of the file. It is asked once, and the answer is remembered."""
        if self.knows(relative, stamp):
            return True
        if self._recorded(self._event_id(relative, stamp)) is None:
            return False
        self._seen[relative] = stamp
        return True

    def forget_all_but(self, present: set[str]) -> None:
        """Files that have vanished need not be remembered."""
        for gone in self._seen.keys() - present:
            del self._seen[gone]

    def take(self, relative: str, stamp: Stamp) -> Claim:
        self._seen[relative] = stamp
        path = self._inbox / relative
        return Claim(self._event_id(relative, stamp), relative, self._now(), path, stamp)

    def attempt(self, _claim: Claim, _crashes: int) -> None:
        """There is nowhere to count it."""

    def finish(self, _claim: Claim, _stamp: Stamp | None, _problem: str | None) -> None:
        """The file stays."""

    def tidy(self, _relative: str) -> None:
        """The sidecar stays."""

    def close(self) -> None:
        """Nothing is held."""

    def _event_id(self, relative: str, stamp: Stamp) -> str:
        path = os.fsencode(self._inbox / relative).hex()  # in hex: a name need not be text
        return str(uuid.uuid5(_NAMESPACE, f"{path}|{stamp.size_bytes}|{stamp.mtime_ns}|{stamp.inode}"))
