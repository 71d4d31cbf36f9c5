"""Which files of an inbox that is only read have been inspected: the ledger knows, and nothing is written there."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import structlog

from station.durable import read_kept, write_kept
from station.errors import SourceError
from station.sources.claims import Claim, Leftover
from station.sources.names import Stamp, stamp_of
from station.types import Recorded

log = structlog.get_logger(__name__)

_NAMESPACE = uuid.UUID("5d0b3c36-6d4b-5e0f-9f3b-0f4f2d1f9a11")  # made once for this purpose

IN_FLIGHT = "in-flight.json"  # in the data directory


class Marks:
    """
    The claims of a station that leaves its files where they are.

    A board's event id is made of its file's path, inode, size and modification time, so that a restart finds in the
    ledger what was inspected, and a file that was written anew is a new board. Which files are in flight, and how many
    crashes the next start is to count for each should this run not end in good order, stands in *in_flight*.
    """

    def __init__(
        self, inbox: Path, *, in_flight: Path, recorded: Callable[[str], Recorded | None], now: Callable[[], datetime]
    ) -> None:
        self._inbox = inbox
        self._in_flight = in_flight
        self._recorded = recorded
        self._now = now
        self._seen: dict[str, Stamp] = {}
        self._flying: dict[str, tuple[Claim, int]] = {}

    def open(self) -> list[Leftover]:
        """What was in flight when an earlier run crashed, and is still what it was."""
        return list(self._left())

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
        """Raises SourceError where it cannot be written down."""
        self._seen[relative] = stamp
        path = self._inbox / relative
        claim = Claim(self._event_id(relative, stamp), relative, self._now(), path, stamp)
        self.attempt(claim, 0)
        return claim

    def attempt(self, claim: Claim, crashes: int) -> None:
        """A file that was in flight in *crashes* crashes is taken: another crash will be found to be its next."""
        self._flying[claim.event_id] = (claim, crashes)
        self._note(crash=1)

    def finish(self, claim: Claim, _stamp: Stamp | None, _problem: str | None) -> None:
        """The file stays, and the ledger has it: it need not be struck out before the next one is written down."""
        self._flying.pop(claim.event_id, None)

    def tidy(self, _relative: str) -> None:
        """The sidecar stays."""

    def close(self) -> None:
        """This run ends in good order: what is in flight has crashed nothing."""
        try:
            self._note(crash=0)
        except SourceError as error:  # the next start then tries the files in flight first: slower, and harmless
            log.warning("clean end not noted", file=str(self._in_flight), error=str(error))

    def _left(self) -> Iterator[Leftover]:
        for event_id, entry in read_kept(self._in_flight).items():
            with suppress(KeyError, TypeError, ValueError, OSError):  # a damaged entry, or a file that has gone
                relative = os.fsdecode(bytes.fromhex(entry["file_hex"]))
                path = self._inbox / relative
                stamp = stamp_of(path.lstat())
                if self._event_id(relative, stamp) == event_id:
                    self._seen[relative] = stamp
                    claim = Claim(event_id, relative, self._now(), path, stamp)
                    self._flying[event_id] = (claim, int(entry["crashes"]))
                    yield Leftover(claim, int(entry["crashes"]))

    def _note(self, *, crash: int) -> None:
        document = {
            event_id: {"file_hex": os.fsencode(claim.relative).hex(), "crashes": crashes + crash}
            for event_id, (claim, crashes) in self._flying.copy().items()  # boards are finished in another thread
        }
        try:
            write_kept(self._in_flight, document)
        except OSError as error:
            raise SourceError(f"{self._in_flight} cannot be written ({error.strerror})") from error

    def _event_id(self, relative: str, stamp: Stamp) -> str:
        path = os.fsencode(self._inbox / relative).hex()  # in hex: a name need not be text
        return str(uuid.uuid5(_NAMESPACE, f"{path}|{stamp.size_bytes}|{stamp.mtime_ns}|{stamp.inode}"))
