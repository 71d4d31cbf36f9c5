"""When is a file a board? When its writer has finished it, or will evidently never do so."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG

from station.picture import Look, look, refusal
from station.sources.claims import Claim
from station.sources.names import Stamp, stamp_of, unfit

STABLE_S = 0.5  # two looks this far apart at an unchanged file: what only a scan has found is then taken as written
_GLANCE_S = 1.0  # how often an unfinished file is looked at again: one lstat, and it is read only when it has changed


@dataclass(slots=True)
class Candidate:
    """
    A file that may become a board, and what is known of it so far; only the thread that looks at it touches it.

    *claim* is set once it is the station's. *said*: its writer closed it, renamed it into place, or left a sidecar.
    *since_s*: from when on (monotonic) the file has been as *stamp* says. *flawed*: this version was read, in vain.
    *due_s* and *ticket* are its place in the queue.
    """

    relative: str
    path: Path
    claim: Claim | None = None
    crashes: int = 0
    said: bool = False
    stamp: Stamp | None = None
    since_s: float = 0.0
    flawed: bool = False
    due_s: float = 0.0
    ticket: int = 0

    @property
    def key(self) -> str:
        """Tells it from all others; a claimed file may have a namesake in the inbox by now."""
        return self.relative if self.claim is None else f"/{self.claim.event_id}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picture may be, and how long an unfinished file must not have changed before it is given up."""

    max_bytes: int
    max_pixels: int
    unchanged_s: float


@dataclass(frozen=True, slots=True)
class Ready:
    """The file is a board as of *stamp*: with its bytes, or a *problem* (*data* is then empty if it was not read)."""

    stamp: Stamp
    data: bytes = b""
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class NotYet:
    """Look again at *due_s* (monotonic)."""

    due_s: float


@dataclass(frozen=True, slots=True)
class Gone:
    """There is nothing (more) that could become a board."""


def settle(candidate: Candidate, now_s: float) -> Stamp | Ready | NotYet | Gone:
    """
    Whether the writer seems to have finished: he said so, or the file has not changed between two looks.

    Ready at once is only what could never hold a picture. Time is only ever compared with the station's own monotonic
    clock: the file's may be that of a server.
    """
    try:
        status = candidate.path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Gone()
    if S_ISDIR(status.st_mode):
        return Gone()
    stamp = stamp_of(status)
    why = unfit(status)
    if why is not None:
        return Ready(stamp, problem=why)
    if stamp != candidate.stamp:
        candidate.stamp, candidate.since_s, candidate.flawed = stamp, now_s, False
    if not candidate.said and now_s - candidate.since_s < STABLE_S:
        return NotYet(candidate.since_s + STABLE_S)
    return stamp


def examine(candidate: Candidate, stamp: Stamp, *, limits: Limits, now_s: float) -> Ready | NotYet | Gone:
    """
    Reads a settled file and judges its structure: whole, not yet whole, or given up after *unchanged_s*.

    Nothing is read of a file that is too large, nothing is followed, and nothing here waits for a pipe.
    """
    said, candidate.said = candidate.said, False
    waited = now_s - candidate.since_s >= limits.unchanged_s
    later = NotYet(min(candidate.since_s + limits.unchanged_s, now_s + _GLANCE_S))
    if stamp.size_bytes > limits.max_bytes:
        why = f"too large: {stamp.size_bytes / 1e6:.1f} MB, and {limits.max_bytes / 1e6:.1f} MB are allowed"
        return Ready(stamp, problem=why) if said or waited else later
    if candidate.flawed and not said and not waited:
        return later
    holes = False
    try:
        data, stamp_read, holes = _read(candidate.path, stamp)
    except FileNotFoundError:
        return Gone()
    except OSError as error:  # permissions may come later than the bytes
        data, found = b"", Look(None, flaw=f"cannot be read ({error.strerror})")
    else:
        if stamp_read != stamp or len(data) != stamp.size_bytes:
            candidate.stamp, candidate.since_s, candidate.flawed = stamp_read, now_s, False
            return NotYet(now_s + STABLE_S)
        found = look(data)
    if found.flaw is None and (said or waited or not holes):
        return Ready(stamp, data, refusal(found, max_pixels=limits.max_pixels))
    candidate.flawed = True  # or it has its full size, and its writer has not come to all of it
    at_once = said and found.hopeless
    problem = found.flaw if at_once else f"{found.flaw} after {limits.unchanged_s:g} s unchanged"
    return Ready(stamp, data, problem) if at_once or waited else later


def _read(path: Path, stamp: Stamp) -> tuple[bytes, Stamp, bool]:
    """
    The bytes, one more than there should be at most, the version that they are of if it is *stamp*, and whether a part
    of the file was never written: Explorer and others give a file its size first, and a BMP has no other end.
    """
    # What became a link or a pipe since it was looked at is not opened, or does not make us wait.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        data = file.read(stamp.size_bytes + 1) if S_ISREG(os.fstat(descriptor).st_mode) else b""
        # What the file system does not know of holes is all data to it, and the end counts as one.
        holes = bool(data) and os.lseek(descriptor, 0, os.SEEK_HOLE) < len(data)
        return data, stamp_of(os.fstat(descriptor)), holes
