"""The watched folder: a picture dropped into it becomes a Frame, once, whatever happens in between."""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import structlog

from station.errors import SourceError
from station.picture import DEEP_BITS, REFUSED, decode
from station.sources.claims import Claim, Claims, Leftover
from station.sources.inbox import Inbox
from station.sources.marks import Marks
from station.sources.names import Stamp, printable
from station.sources.readiness import Candidate, Gone, Limits, NotYet, Ready, examine, settle
from station.sources.trial import TrialStoppedError, trial
from station.sources.watching import Watch, remote_kind
from station.types import Frame, Image, Recorded, Stop

log = structlog.get_logger(__name__)

MAX_CRASHES = 3  # a file that was in flight in so many crashes is not tried again
_IDLE_S = 0.25  # how often an idle source says so, and sees that it shall stop
SILENT_S = 90.0  # after which a look, a read or a scan that has not come back is one at a share whose server is away
# Of pictures that are larger than this only the next one is decoded ahead: each takes three bytes a pixel.
_LARGE_PX = 4_000_000


class Custody(Protocol):
    """
    Who remembers which files are the station's, and which were inspected. Raises SourceError if it cannot.

    ``finish`` comes from the line's thread, ``open`` and ``close`` when no other call is under way, and everything
    else from the thread that works ahead.
    """

    def open(self) -> list[Leftover]: ...
    def knows(self, relative: str, stamp: Stamp, /) -> bool: ...
    def on_record(self, relative: str, stamp: Stamp, /) -> bool: ...
    def forget_all_but(self, present: set[str], /) -> None: ...
    def take(self, relative: str, stamp: Stamp, /) -> Claim | None: ...
    def attempt(self, claim: Claim, crashes: int, /) -> None: ...
    def finish(self, claim: Claim, stamp: Stamp | None, problem: str | None, /) -> Claim | None: ...
    def tidy(self, relative: str, /) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Taken:
    """A frame for the line, and the version of which file it is. *alone*: nothing else may be in flight beside it."""

    frame: Frame
    claim: Claim
    stamp: Stamp
    alone: bool


class FolderSource:
    """
    A Source that watches a folder.

    A file is taken when its writer closed it or renamed it into place and it is structurally whole, or when a scan
    found it whole and unchanged. With ``after="move"`` it is claimed by a rename into ``processing/`` and ends in
    ``done/DATE/`` or, with the reason beside it, in ``failed/``; after an unclean exit what was in flight is inspected
    under its old event ids, one by one: given up where the decoder crashes on it again, in a process of its own, or
    after its third crash. With ``after="leave"`` the folder is only read, a file is known by its path, inode, size and
    time, and *in_flight* is the file, elsewhere, that tells the next start which were in flight.

    *recorded* tells what the ledger knows of an event id; it is called from the source's own thread, as is
    *on_backlog* with the number of files waiting. *polling* None: find out from the file system's type.
    *depth_bits*: how many of 16 bits a deep picture uses.
    The first group of *serial_pattern*, or all that it matches in the file's name, is the board's serial.

    *on_silence* hears whether the folder does not answer; it is called from the line's thread, when that changes. A
    read that hangs cannot be ended, and no restart helps: the line only waits, as it does for the next board.

    *foresee* hears, from the source's own thread, of each frame that waits while another is with the caller; up to
    *ahead* of them are decoded then.
    """

    def __init__(
        self,
        path: Path,
        *,
        after: Literal["move", "leave"],
        recorded: Callable[[str], Recorded | None],
        in_flight: Path,
        serial_pattern: re.Pattern[str] | None = None,
        subfolders: bool = False,
        polling: bool | None = None,
        scan_every_s: float = 30.0,
        unchanged_s: float = 30.0,
        max_bytes: int = 100_000_000,
        max_pixels: int = 150_000_000,
        depth_bits: int = DEEP_BITS,
        on_backlog: Callable[[int], None] = lambda _waiting: None,
        on_silence: Callable[[bool], None] = lambda _silent: None,
        foresee: Callable[[Frame], None] = lambda _frame: None,
        ahead: int = 1,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._path = path
        self._after = after
        self._recorded = recorded
        self._in_flight = in_flight
        self._serial_pattern = serial_pattern
        self._subfolders = subfolders
        self._polling = polling
        self._scan_every_s = scan_every_s
        self._limits = Limits(max_bytes, max_pixels, unchanged_s)
        self._decode = partial(decode, depth_bits=depth_bits)
        self._on_backlog = on_backlog
        self._on_silence = on_silence
        self._silent = False
        self._foresee = foresee
        self._depth = ahead
        self._monotonic = monotonic
        self._now = now

    def frames(self, stop: Stop) -> Generator[Frame | None, None, None]:
        """
        One Frame for each file, None while there is none; while a frame is with the caller the next are being decoded.

        Raises SourceError when the folder cannot be read or its files cannot be moved.
        """
        custody = self._custody()
        inbox = Inbox(
            self._path,
            subfolders=self._subfolders,
            scan_every_s=self._scan_every_s,
            unchanged_s=self._limits.unchanged_s,
            knows=custody.knows,
            monotonic=self._monotonic,
        )
        inbox.check()
        leftovers = custody.open()
        watch = None if self._polls() else Watch(self._path, subfolders=self._subfolders, hint=inbox.hint)
        ahead = _Ahead(
            inbox,
            custody,
            watch=watch,
            limits=self._limits,
            frame=self._frame,
            decode=self._decode,
            on_backlog=self._on_backlog,
            foresee=self._foresee,
            monotonic=self._monotonic,
        )
        pool = ThreadPoolExecutor(1, thread_name_prefix="folder-ahead")
        try:
            coming: deque[Future[_Taken | None]] = deque([pool.submit(ahead.start, leftovers, self._recorded)])
            waits_since_s: float | None = None
            while not stop.is_set():
                wait([coming[0]], timeout=_IDLE_S)
                if not coming[0].done():
                    now_s = self._monotonic()
                    waits_since_s = now_s if waits_since_s is None else waits_since_s
                    self._says_nothing(now_s - waits_since_s > SILENT_S)
                    yield None
                    continue
                waits_since_s = None
                self._says_nothing(False)
                taken = coming.popleft().result()
                if taken is None:
                    if not coming:
                        coming.append(pool.submit(ahead.next, alone=True))  # nothing is in flight now
                    yield None
                    continue
                if not taken.alone:
                    for _ in range(self._depth_for(taken.frame) - len(coming)):
                        coming.append(pool.submit(ahead.next, alone=False))
                yield taken.frame
                ahead.finished += 1
                anew = custody.finish(taken.claim, taken.stamp, taken.frame.problem)
                if anew is not None:
                    inbox.add(Candidate(anew.relative, anew.path, claim=anew))
                if taken.alone:
                    coming.append(pool.submit(ahead.next, alone=True))
        finally:
            inbox.close()
            pool.shutdown()
            if watch is not None:
                watch.stop()
            custody.close()

    def _says_nothing(self, silent: bool) -> None:
        if silent != self._silent:
            self._silent = silent
            self._on_silence(silent)

    def _depth_for(self, frame: Frame) -> int:
        return 1 if frame.image is None or frame.image.shape[0] * frame.image.shape[1] > _LARGE_PX else self._depth

    def _custody(self) -> Custody:
        match self._after:
            case "move":
                return Claims(self._path, now=self._now)
            case "leave":
                return Marks(self._path, in_flight=self._in_flight, recorded=self._recorded, now=self._now)

    def _polls(self) -> bool:
        if self._polling is not None:
            return self._polling
        kind = remote_kind(self._path)
        if kind is not None:
            log.info("folder is polled", folder=printable(str(self._path)), file_system=kind)
        return kind is not None

    def _frame(self, claim: Claim, data: bytes, image: Image | None, problem: str | None) -> Frame:
        name = printable(claim.relative)
        serial = self._serial_pattern.search(name.rpartition("/")[2]) if self._serial_pattern else None
        return Frame(
            id=claim.event_id,
            image=image,
            captured_at=claim.claimed_at,
            source="folder",
            file=name,
            board_serial=serial and serial[1 if serial.re.groups else 0],
            sha256=hashlib.sha256(data).hexdigest() if data else "",
            problem=problem,
        )


class _Ahead:
    """What the thread does that works ahead: one call, one frame. *finished*: of how many the line wants no more."""

    def __init__(
        self,
        inbox: Inbox,
        custody: Custody,
        *,
        watch: Watch | None,
        limits: Limits,
        frame: Callable[[Claim, bytes, Image | None, str | None], Frame],
        decode: Callable[[bytes], Image | None],
        on_backlog: Callable[[int], None],
        foresee: Callable[[Frame], None],
        monotonic: Callable[[], float],
    ) -> None:
        self.finished = 0
        self._taken = 0
        self._foresee = foresee
        self._limits = limits
        self._custody = custody
        self._inbox = inbox
        self._watch = watch
        self._frame = frame
        self._decode = decode
        self._on_backlog = on_backlog
        self._monotonic = monotonic

    def start(self, leftovers: list[Leftover], recorded: Callable[[str], Recorded | None]) -> _Taken | None:
        """Finishes what an earlier run left behind and the ledger knows, queues the rest of it, and goes on."""
        for leftover in leftovers:
            claim = leftover.claim
            known = recorded(claim.event_id)
            if known is not None:
                self._custody.finish(claim, None, known.problem)
            else:
                candidate = Candidate(claim.relative, claim.path, claim=claim, crashes=leftover.crashes, said=True)
                self._inbox.later(candidate, float("-inf"))  # before anything new, in their order
        return self.next(alone=True)

    def next(self, *, alone: bool) -> _Taken | None:
        """
        The next frame. None: there is none yet, or the next file must be alone and is not.

        It never waits for long: an interpreter that is told to exit waits for this thread.
        """
        rested = False
        while not self._inbox.closed:
            if self._inbox.scan_is_due():
                self._scan()
            candidate = self._inbox.due()
            if candidate is None:
                if rested:
                    break
                self._inbox.wait()
                rested = True
                continue
            if candidate.crashes and not alone:
                self._inbox.later(candidate, candidate.due_s)
                break
            taken = self._try(candidate)
            if taken is not None:
                self._on_backlog(len(self._inbox))
                if self._taken > self.finished:
                    self._foresee(taken.frame)
                self._taken += 1
                return taken
        return None

    def _scan(self) -> None:
        watched = self._watch is not None and self._watch.ensure()
        scan = self._inbox.scan(watched=watched)
        self._custody.forget_all_but(scan.present)
        for orphan in scan.orphans:
            self._custody.tidy(orphan)
        self._on_backlog(len(self._inbox))

    def _try(self, candidate: Candidate) -> _Taken | None:
        ready = self._look(candidate)
        match ready:
            case NotYet(due_s):
                self._inbox.later(candidate, due_s)
                return None
            case Gone():
                self._inbox.drop(candidate)
                return None
            case Ready():
                claim = self._claim(candidate, ready)
                return self._take(claim, candidate, ready) if claim is not None else None

    def _look(self, candidate: Candidate) -> Ready | NotYet | Gone:
        now_s = self._monotonic()
        try:
            settled = settle(candidate, now_s)
        except OSError as error:
            name = printable(str(candidate.path))
            raise SourceError(f"{name} cannot be looked at ({error.strerror}): is the share there?") from error
        if not isinstance(settled, Stamp):
            return settled
        if candidate.claim is None and self._custody.on_record(candidate.relative, settled):
            return Gone()
        return examine(candidate, settled, limits=self._limits, now_s=now_s)

    def _claim(self, candidate: Candidate, ready: Ready) -> Claim | None:
        """The claim on what was looked at. None: it is gone, or it is claimed and must be looked at again."""
        self._inbox.drop(candidate)
        if candidate.claim is not None:
            return candidate.claim
        claim = self._custody.take(candidate.relative, ready.stamp)
        if claim is not None and claim.stamp != ready.stamp:
            # Its writer goes on through a descriptor that he had open, or another file has come under this name.
            self._inbox.later(Candidate(claim.relative, claim.path, claim=claim), self._monotonic())
            return None
        return claim

    def _take(self, claim: Claim, candidate: Candidate, ready: Ready) -> _Taken | None:
        problem = ready.problem
        if problem is None and candidate.crashes >= MAX_CRASHES:
            problem = f"the station ended {MAX_CRASHES} times during this file (a crash, a power cut)"
        image = None
        if problem is None and candidate.crashes:
            self._custody.attempt(claim, candidate.crashes)
            try:
                problem = trial(ready.data, stopped=lambda: self._inbox.closed)
            except TrialStoppedError:
                return None  # the next start tries it
        if problem is None:
            image = self._decode(ready.data)
            problem = None if image is not None else REFUSED  # ``examine`` has looked at the rest
        frame = self._frame(claim, ready.data, image, problem)
        return _Taken(frame, claim, ready.stamp, alone=candidate.crashes > 0)
