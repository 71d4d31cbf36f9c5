"""The nouns of an inspection, and the Protocols at which parts meet."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from queue import SimpleQueue
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Image: TypeAlias = NDArray[np.uint8]
"""Height x width x 3, BGR, 0..255."""

Grey: TypeAlias = NDArray[np.uint8]
"""Height x width, 0..255."""

Stop: TypeAlias = threading.Event
"""Set when a loop should end. Every wait in the station is a wait on it."""

Beat: TypeAlias = Callable[[str], None]
"""A loop calls it with its name whenever it really moved."""

Scope: TypeAlias = Literal["read", "predict", "command"]
"""What a caller of the HTTP port may do: see boards and state, have pictures judged, or move the line."""


class Verdict(Enum):
    """What the station answers for a board. UNKNOWN is an answer: it is never a pass."""

    PASS = "pass"  # noqa: S105  # no password
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Box:
    """An axis-parallel rectangle, in pixels of the original image; (x, y) is its top left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def area_px(self) -> float:
        return self.width * self.height

    def shared_px(self, other: Box) -> float:
        """The area that lies in both."""
        width = min(self.x + self.width, other.x + other.width) - max(self.x, other.x)
        height = min(self.y + self.height, other.y + other.height) - max(self.y, other.y)
        return width * height if width > 0 and height > 0 else 0.0

    def iou(self, other: Box) -> float:
        """Intersection over union, 0..1."""
        shared = self.shared_px(other)
        return shared / (self.area_px + other.area_px - shared) if shared else 0.0


@dataclass(frozen=True, slots=True)
class Defect:
    """Something a detector found: confidence 0..1, box in pixels of the original image, and which model found it."""

    label: str
    confidence: float
    box: Box
    found_by: str


def cut(value: float, places: int) -> float:
    """*value* to so many decimal places, cut and not rounded: 0.49998 must not read as a 0.5 that did not count."""
    steps = 10.0**places
    return int(value * steps + 1e-9) / steps


@dataclass(frozen=True, slots=True)
class Trigger:
    """
    The line asks for the inspection of one board, and is owed exactly one answer.

    *id* becomes the board's event id. *kind* is what asked (``serial``, ``mqtt``, ``http``, ``modbus``), *number* what
    it called the board. *at* is UTC; *at_s* the same moment on ``time.monotonic``.
    """

    id: str
    kind: str
    at: datetime
    at_s: float
    number: int | None = None
    board_serial: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What the line is told of one board; *trigger* is None where nobody asked (a folder, a free-running camera).

    *until_s* (``time.monotonic``): no acknowledgement is waited for any longer, since the next answer is due then.
    """

    event_id: str
    verdict: Verdict
    reason: str
    trigger: Trigger | None = None
    until_s: float = float("inf")


@dataclass(frozen=True, slots=True)
class Shot:
    """
    One picture of a camera.

    *number* counts what the camera delivered: a gap is what was skipped. *began_s* is the earliest moment at which its
    exposure can have begun, *arrived_s* when it was there (both ``time.monotonic``), *taken_at* the latter in UTC.
    """

    image: Image
    number: int
    began_s: float
    arrived_s: float
    taken_at: datetime


@dataclass(frozen=True, slots=True)
class Frame:
    """
    One picture of one board, or the news that there is none to be had.

    *id* is the board's event id for ever: a UUID, minted once when the board was taken or asked for.
    *image* is None exactly when *problem* says why the picture cannot be judged.
    *sha256* is of the original bytes (hex), empty when they could not be read. A camera's picture has none: it is of
    its pixels, and the line makes it.
    """

    id: str
    image: Image | None
    captured_at: datetime
    source: str
    file: str | None = None
    board_serial: str | None = None
    sha256: str = ""
    problem: str | None = None
    trigger: Trigger | None = None


@dataclass(frozen=True, slots=True)
class Region:
    """A named rectangle of the board, in pixels, whose detections are ignored (and reported as suppressed)."""

    name: str
    box: Box


@dataclass(frozen=True, slots=True)
class TrustLimits:
    """
    What the pictures of good boards taught (``station trust learn``): a picture beyond it is not judged.

    Brightness and contrast in grey levels (0..255), sharpness as ``trust.Look`` has it. *max_shift_px*: how far a board
    may lie off its template, None where there was none. *min_parts*: brightness of each of 4 x 4 parts of the picture,
    row by row; None in limits that were learned before it was looked at.
    """

    width: int
    height: int
    min_brightness: float
    max_brightness: float
    min_contrast: float
    min_sharpness: float
    max_shift_px: float | None = None
    min_parts: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """
    The limits of one product.

    *default_threshold* and *thresholds* (by label): a defect at or above its label's threshold fails the board.
    *min_area_px*: smaller boxes are suppressed. *ignore*: boxes whose centre lies in a region are suppressed.
    *template_sha256* (hex): of the defect-free board that this one is compared with, and *registration_limit*: how well
    it must fit; both None where there is none. *trust*: what a picture must look like; None: it was never learned.
    """

    name: str
    default_threshold: float
    thresholds: dict[str, float] = field(default_factory=dict)
    min_area_px: float = 0.0
    ignore: tuple[Region, ...] = ()
    template_sha256: str | None = None
    registration_limit: float | None = None
    min_contrast: float = 12.0
    trust: TrustLimits | None = None

    def threshold(self, label: str) -> float:
        return self.thresholds.get(label, self.default_threshold)


@dataclass(frozen=True, slots=True)
class Judged:
    """A defect and whether it passed the recipe's threshold."""

    defect: Defect
    counts: bool


@dataclass(frozen=True, slots=True)
class Suppressed:
    """A defect that the recipe hides from the verdict, and by what: ``min_area_px`` or ``region NAME``."""

    defect: Defect
    by: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What the recipe makes of the defects, with a reason that a person can read."""

    verdict: Verdict
    reason: str
    defects: tuple[Judged, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model judged: its name and the sha256 (hex) of its file."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """One board's whole outcome, before anything was done about it; *detect_ms* is None where no detector ran."""

    frame: Frame
    decision: Decision
    model: ModelInfo
    recipe: str
    recipe_sha256: str
    detect_ms: float | None
    total_ms: float
    clock_synced: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """Where an inspection stands in the ledger: *seq* counts without gaps within *ledger* (a UUID)."""

    seq: int
    ledger: str


@dataclass(frozen=True, slots=True)
class Message:
    """What is owed to the broker: a topic below the station's own (``inspection/fail``) and its payload."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Owed:
    """A message that the broker has not acknowledged, and its row in the outbox."""

    row: int
    message: Message


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the ledger knows of a board: *problem* is why its picture could not be judged, or None if it could."""

    problem: str | None


class Fate(Enum):
    """What became of a message that was sent."""

    ACCEPTED = "accepted"  # the broker has acknowledged it
    REFUSED = "refused"  # the broker answered that it will not take it
    BUSY = "busy"  # the broker answered that it cannot take it now: try again later
    LOST = "lost"  # the connection ended before an answer


@dataclass(frozen=True, slots=True)
class Ack:
    """The fate of the message that ``send`` gave *token* for; *reason* as the broker put it, empty when accepted."""

    token: int
    fate: Fate
    reason: str = ""


class Source(Protocol):
    """
    Where frames come from.

    ``frames`` owns everything it opens and closes it on the way out. It yields a Frame, or None at least once a second
    while there is none, so that the loop can show that it is alive. It returns only when *stop* is set, and raises
    SourceError on trouble: it does not retry, its caller does.

    Asking for the next frame means that the last one is safely recorded. Closing the generator, or throwing into it,
    never means that.
    """

    def frames(self, stop: Stop) -> Generator[Frame | None, None, None]: ...


class Detector(Protocol):
    """Called from any thread. Raises DetectorError for an image it cannot judge."""

    @property
    def model(self) -> ModelInfo: ...

    def detect(self, image: Image) -> list[Defect]: ...


class ModelDetector(Detector, Protocol):
    """A detector that knows its labels before it has seen a board, and what to say of itself in one line."""

    @property
    def description(self) -> str: ...

    @property
    def labels(self) -> tuple[str, ...]: ...

    def half(self) -> ModelDetector:
        """The same on half of the cores, for two boards at a time; itself where that is nothing else."""


class Camera(Protocol):
    """
    What takes pictures. It opens, watches and reopens its device by itself, in a loop of its own.

    ``shot`` waits for the newest picture that began at *since_s* (``time.monotonic``) or later and whose number is
    above *after*, at most *within_s*. Raises CameraError at once when the camera is away, or when none came in time.

    ``order`` reserves the first picture that begins at *since_s* or later, and returns at once. The picture is kept for
    this caller and given to nobody else. One that arrives after *until_s* is not used.
    """

    def shot(self, *, since_s: float, after: int = 0, within_s: float) -> Shot: ...

    def order(self, *, since_s: float, until_s: float) -> Order: ...


class Order(Protocol):
    """
    A picture that was asked for.

    ``shot`` waits for it, and gives the same one each time. Raises CameraError when the camera is away, or was away in
    the meantime, and when no picture came in time. ``cancel``: nobody will come for it.
    """

    def shot(self) -> Shot: ...

    def cancel(self) -> None: ...


class Port(Protocol):
    """
    One open serial port, shared by who reads and who writes. It opens and reopens itself, in a loop of its own.

    ``listen``: *on_line* gets each line (whole, without its terminator) and the time of its last byte
    (``time.monotonic``), and returns True if it takes the line. Listeners are asked in turn until one takes it.
    *on_open* is called after each opening, before any line, and whenever bytes were dropped because nobody had read
    them for too long. Both run in the port's thread and must be quick. ``write`` may be called from any thread; raises
    GateError when the port is away or does not take the bytes in time.
    """

    @property
    def connected(self) -> bool: ...

    def listen(self, on_line: Callable[[bytes, float], bool], on_open: Callable[[], None] = lambda: None) -> None: ...

    def write(self, data: bytes) -> None: ...


class Gate(Protocol):
    """
    Makes the physical result happen. Called by one thread at a time; must return within the line's deadline.

    Raises GateError when the answer may not have reached the line. ``busy`` tells that a board is being inspected
    (True) or the next may come (False); after ``safe`` nothing passes any more, whatever is shown.
    """

    def show(self, answer: Answer) -> None: ...

    def busy(self, busy: bool) -> None: ...

    def safe(self, why: str) -> None: ...


class Evidence(Protocol):
    """Keeps a board's picture: whole on disk when its name (in the evidence folder) is returned; None: not kept."""

    def keep(self, inspection: Inspection) -> str | None: ...


class Ledger(Protocol):
    """
    Every board once. Called from one thread at a time. Raises LedgerError when a commit did not reach the disk.

    *make* turns the entry just numbered into the message to send. With ``owed=True`` the message may be published as
    soon as ``record`` returns; with ``owed=False`` it waits for ``seal``, which replaces it (a crash in between leaves
    the one that ``record`` wrote, and the next start owes it). Recording an id again returns its first entry and
    changes nothing. *amended*: what the board's decision became since it was recorded.
    """

    def record(self, inspection: Inspection, make: Callable[[Entry], Message], *, owed: bool) -> Entry: ...

    def seal(self, entry: Entry, message: Message, *, amended: Decision | None = None) -> None: ...


class Outbox(Protocol):
    """What is owed to the broker, oldest first. Called from the publish thread only, with short commits."""

    def owed(self, *, after: int, limit: int) -> list[Owed]: ...

    def settle(self, accepted: list[int], refused: list[tuple[int, str]]) -> None:
        """Marks rows as accepted, or as set aside with the broker's reason, in one commit."""

    def offer_refused_again(self) -> int:
        """Owes what was set aside once more; returns how many."""


class Link(Protocol):
    """
    Delivery of one message at least once. ``send`` is called only while ``ready()``, from one thread.

    Every token that ``send`` returned comes back exactly once in *acks*: accepted, refused, busy, or lost.
    ``tell`` is now or never (heartbeat, QoS 0): dropped, and that is fine, while there is no connection.
    """

    acks: SimpleQueue[Ack]

    @property
    def connections(self) -> int:
        """How often the broker has accepted us: it changes when there is a new connection."""

    def ready(self) -> bool: ...

    def send(self, topic: str, payload: bytes) -> int: ...

    def tell(self, topic: str, payload: bytes) -> None: ...
