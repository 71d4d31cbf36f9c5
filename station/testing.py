"""Fakes of every plug point, shipped with the package: for our own tests, and for who builds a part of his own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator, Sequence
from queue import SimpleQueue

from station.errors import CameraError, DetectorError, GateError
from station.types import (
    Ack,
    Answer,
    Decision,
    Defect,
    Entry,
    Fate,
    Frame,
    Image,
    Inspection,
    Message,
    ModelInfo,
    Owed,
    Shot,
    Stop,
)


class FakeSource:
    """Yields the given frames, then None until it is stopped. ``asked`` counts how often a next frame was asked for."""

    def __init__(self, frames: Sequence[Frame | None]) -> None:
        self._frames = frames
        self.asked = 0
        self.closed = 0

    def frames(self, stop: Stop) -> Generator[Frame | None, None, None]:
        try:
            for frame in self._frames:
                self.asked += 1
                yield frame
            while not stop.wait(0.01):
                self.asked += 1
                yield None
        finally:
            self.closed += 1


class FakeDetector:
    """Finds the given defects in every image; raises DetectorError when *refuses* says so."""

    model = ModelInfo("fake", "0" * 64)

    def __init__(self, defects: Sequence[Defect] = (), *, refuses: str | None = None) -> None:
        self._defects = defects
        self._refuses = refuses

    def detect(self, image: Image) -> list[Defect]:  # noqa: ARG002  # the contract has it
        if self._refuses is not None:
            raise DetectorError(self._refuses)
        return list(self._defects)


class FakeGate:
    """Remembers what it showed; raises *broken*, if given. *before* is called first, to look at the world then."""

    def __init__(
        self, *, broken: GateError | None = None, before: Callable[[Answer], None] = lambda _answer: None
    ) -> None:
        self.shown: list[Answer] = []
        self.told: list[str] = []
        self.broken = broken
        self._before = before

    def show(self, answer: Answer) -> None:
        self._before(answer)
        if self.broken is not None:
            raise self.broken
        self.shown.append(answer)

    def busy(self, busy: bool) -> None:
        self.told.append("busy" if busy else "ready")

    def safe(self, why: str) -> None:
        self.told.append(f"safe: {why}")


class FakeOrder:
    """A picture that was asked for and is there, or that there is none of (*trouble*)."""

    def __init__(self, shot: Shot | None = None, *, trouble: str = "the camera is away") -> None:
        self.cancelled = False
        self._shot = shot
        self._trouble = trouble

    def shot(self) -> Shot:
        if self._shot is None:
            raise CameraError(self._trouble)
        return self._shot

    def cancel(self) -> None:
        self.cancelled = True


class FakeEvidence:
    """Keeps nothing, and gives every picture the same name."""

    def __init__(self, name: str | None = None) -> None:
        self._name = name

    def keep(self, inspection: Inspection) -> str | None:
        return self._name if inspection.frame.image is not None else None


class FakeLedger:
    """A ledger in memory. ``commits`` tells what was made durable, in order."""

    def __init__(self) -> None:
        self.commits: list[tuple[str, int, Message]] = []
        self.amended: Decision | None = None
        self._entries: dict[str, Entry] = {}

    def record(self, inspection: Inspection, make: Callable[[Entry], Message], *, owed: bool) -> Entry:
        known = self._entries.get(inspection.frame.id)
        if known is not None:
            return known
        entry = Entry(len(self._entries) + 1, "fake-ledger")
        self._entries[inspection.frame.id] = entry
        self.commits.append(("owed" if owed else "recorded", entry.seq, make(entry)))
        return entry

    def seal(self, entry: Entry, message: Message, *, amended: Decision | None = None) -> None:
        self.amended = amended
        self.commits.append(("sealed", entry.seq, message))


class FakeOutbox:
    """An outbox in memory: rows are owed, accepted or refused."""

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        self.rows: dict[int, tuple[Message, str]] = {}
        self.pages: list[int] = []
        self.settlements = 0
        self._numbers = itertools.count(1)  # a number is never used twice, as in the ledger
        for message in messages:
            self.add(message)

    def add(self, message: Message) -> int:
        row = next(self._numbers)
        self.rows[row] = (message, "owed")
        return row

    def state(self, state: str) -> list[int]:
        return [row for row, (_, now) in self.rows.items() if now == state]

    def owed(self, *, after: int, limit: int) -> list[Owed]:
        found = [Owed(row, self.rows[row][0]) for row in sorted(self.state("owed")) if row > after]
        self.pages.append(len(found[:limit]))
        return found[:limit]

    def settle(self, accepted: list[int], refused: list[tuple[int, str]]) -> None:
        self.settlements += 1
        for row in accepted:
            self.rows[row] = (self.rows[row][0], "accepted")
        for row, _reason in refused:
            self.rows[row] = (self.rows[row][0], "refused")

    def offer_refused_again(self) -> int:
        again = self.state("refused")
        for row in again:
            self.add(self.rows.pop(row)[0])
        return len(again)


class FakeLink:
    """A link whose broker is the test: ``sent`` is what came, ``answer`` says what becomes of it."""

    def __init__(self, *, window: int = 20) -> None:
        self.acks: SimpleQueue[Ack] = SimpleQueue()
        self.connections = 1
        self.up = True
        self.sent: list[tuple[int, str, bytes]] = []
        self.told: list[tuple[str, bytes]] = []
        self._window = window
        self._tokens = itertools.count(1)
        self._under_way: set[int] = set()

    def ready(self) -> bool:
        return self.up and len(self._under_way) < self._window

    def send(self, topic: str, payload: bytes) -> int:
        token = next(self._tokens)
        self._under_way.add(token)
        self.sent.append((token, topic, payload))
        return token

    def tell(self, topic: str, payload: bytes) -> None:
        if self.up:
            self.told.append((topic, payload))

    def answer(self, token: int, fate: Fate = Fate.ACCEPTED, reason: str = "") -> None:
        self._under_way.discard(token)
        self.acks.put(Ack(token, fate, reason))
