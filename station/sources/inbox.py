"""The files of the inbox that wait to become boards: found by scans, hastened by hints, looked at in order."""

from __future__ import annotations

import errno
import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from station.errors import SourceError
from station.sources.names import OWN_FOLDERS, Stamp, is_ignored, is_sidecar, pictures_of, printable, stamp_of, stem_of
from station.sources.readiness import STABLE_S, Candidate

log = structlog.get_logger(__name__)

RESCAN = ""  # as a hint: something happened of which only a scan can tell what

_NAP_S = 0.5  # the longest wait, so that an injected clock is seen to move; two wake-ups a second cost nothing
_POLL_S = 1.0  # between two scans where there are no hints
_POLL_SHARE = 100  # and at least so many times what a scan takes: polling a slow share costs 1 % of the time
# Of a subfolder's path: what its files are called in processing/, done/ and failed/ must fit into the system's 4096.
_DEEPEST_BYTES = 3600
_BURST = 500  # so many files claimed since the last scan: hints may have been lost among them


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found: the files *present*, and the sidecars whose picture has been gone for long."""

    present: set[str]
    orphans: list[str]


class Inbox:
    """
    The queue of candidates.

    ``hint``, ``add`` and ``close`` may be called from any thread, everything else from the one that looks at the files.
    *knows* tells a file (by its name below the inbox and its stamp) that needs no second look.
    """

    def __init__(
        self,
        path: Path,
        *,
        subfolders: bool,
        scan_every_s: float,
        unchanged_s: float,
        knows: Callable[[str, Stamp], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.closed = False
        self._path = path
        self._subfolders = subfolders
        self._scan_every_s = scan_every_s
        self._unchanged_s = unchanged_s
        self._knows = knows
        self._monotonic = monotonic
        self._news = threading.Condition()
        self._hints: dict[str, None] = {}  # a set in order: a name is hinted at once, however often that is said
        self._added: deque[Candidate] = deque()
        self._candidates: dict[str, Candidate] = {}
        self._queue: list[tuple[float, int, Candidate]] = []
        self._tickets = itertools.count(1)
        self._orphans: dict[str, float] = {}
        self._forbidden: set[str] = set()
        self._next_scan_s = float("-inf")
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._candidates) + len(self._added)

    def check(self) -> None:
        """Raises SourceError when the inbox cannot be listed."""
        for _ in self._entries(self._path, ""):
            break

    def hint(self, relative: str) -> None:
        """A file was closed after writing or renamed into place, or RESCAN."""
        with self._news:
            self._hints[relative] = None
            self._news.notify()

    def add(self, candidate: Candidate) -> None:
        """A file that is claimed already."""
        with self._news:
            self._added.append(candidate)
            self._news.notify()

    def close(self) -> None:
        """Nothing more will be taken: whoever waits is woken."""
        with self._news:
            self.closed = True
            self._news.notify()

    def wait(self) -> None:
        """Until there is a hint, or something is due, or for half a second."""
        due_s = min(self._next_scan_s, self._queue[0][0] if self._queue else self._next_scan_s)
        with self._news:
            if not (self._hints or self._added or self.closed):
                self._news.wait(min(max(due_s - self._monotonic(), 0.0), _NAP_S))

    def due(self) -> Candidate | None:
        """The candidate to look at now, if there is one; it stays one until it is dropped."""
        self._take_hints()
        now_s = self._monotonic()
        while self._queue and self._queue[0][0] <= now_s:
            _, ticket, candidate = heapq.heappop(self._queue)
            if candidate.ticket == ticket and self._candidates.get(candidate.key) is candidate:
                return candidate
        return None

    def later(self, candidate: Candidate, due_s: float) -> None:
        """Looks at the candidate again at *due_s* (monotonic)."""
        self._candidates[candidate.key] = candidate
        candidate.due_s = due_s
        candidate.ticket = next(self._tickets)
        heapq.heappush(self._queue, (due_s, candidate.ticket, candidate))

    def drop(self, candidate: Candidate) -> None:
        """It is a board now, or gone."""
        self._candidates.pop(candidate.key, None)
        self._dropped += 1

    def scan_is_due(self) -> bool:
        return self._monotonic() >= self._next_scan_s or (self._dropped >= _BURST and not self._candidates)

    def scan(self, *, watched: bool) -> Scan:
        """
        Looks at every name in the inbox, and queues what is new, oldest first. *watched*: hints come, too.

        Raises SourceError when the inbox cannot be listed.
        """
        began_s = self._monotonic()
        present: set[str] = set()
        sidecars: list[str] = []
        fresh: list[tuple[int, str, Stamp]] = []
        for relative, entry in self._entries(self._path, ""):
            if is_sidecar(entry.name):
                sidecars.append(relative)
                continue
            present.add(relative)
            if relative in self._candidates:
                continue
            try:
                stamp = stamp_of(entry.stat(follow_symlinks=False))
            except OSError:  # gone, or a share that stumbles: the next scan sees it again
                continue
            if not self._knows(relative, stamp):
                fresh.append((stamp.mtime_ns, relative, stamp))
        now_s = self._monotonic()
        for _, relative, stamp in sorted(fresh, key=lambda one: one[:2]):
            self.later(Candidate(relative, self._path / relative, stamp=stamp, since_s=now_s), now_s + STABLE_S)
        pause_s = self._scan_every_s if watched else max(_POLL_S, _POLL_SHARE * (now_s - began_s))
        self._next_scan_s = now_s + min(pause_s, self._scan_every_s)
        self._dropped = 0
        return Scan(present, self._match(sidecars, present, now_s))

    def _entries(self, folder: Path, prefix: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        if self._too_deep(prefix):
            self._cannot_list(folder, prefix, OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG)))
            return
        try:
            with os.scandir(folder) as entries:
                found = [entry for entry in entries if not is_ignored(entry.name)]
        except OSError as error:
            self._cannot_list(folder, prefix, error)
            return
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                yield prefix + entry.name, entry
            elif self._subfolders and (prefix or entry.name not in OWN_FOLDERS):
                yield from self._entries(folder / entry.name, f"{prefix}{entry.name}/")

    def _too_deep(self, prefix: str) -> bool:
        """Its files could not be moved, and one that cannot would hold up the line."""
        return bool(prefix) and len(os.fsencode(self._path / prefix)) > _DEEPEST_BYTES

    def _cannot_list(self, folder: Path, prefix: str, error: OSError) -> None:
        if not prefix:
            raise SourceError(
                f"{printable(str(folder))} cannot be read ({error.strerror}): create the folder and let the station's "
                "user read it, or correct path in [source]"
            ) from error
        if prefix not in self._forbidden and not isinstance(error, FileNotFoundError):
            self._forbidden.add(prefix)
            log.error("subfolder cannot be read", folder=printable(prefix), error=error.strerror)

    def _take_hints(self) -> None:
        with self._news:
            hints, self._hints = self._hints, {}
            added, self._added = self._added, deque()
        now_s = self._monotonic()
        for candidate in added:
            self.later(candidate, now_s)
        for relative in hints:
            folder, slash, name = relative.rpartition("/")
            if relative == RESCAN:
                self._next_scan_s = now_s
            elif is_ignored(name) or (slash and not self._subfolders) or relative.split("/", 1)[0] in OWN_FOLDERS:
                continue
            elif self._too_deep(folder):
                self._next_scan_s = now_s  # which says so
            elif is_sidecar(name):
                for picture in pictures_of(name):
                    self._said(folder + slash + picture, now_s, known_only=True)
            else:
                self._said(relative, now_s, known_only=False)

    def _said(self, relative: str, now_s: float, *, known_only: bool) -> None:
        """The writer has finished this file."""
        candidate = self._candidates.get(relative)
        if candidate is None:
            if not known_only:
                self.later(Candidate(relative, self._path / relative, said=True), now_s)
            return
        candidate.said = True
        if candidate.due_s > now_s:  # else it keeps its place
            self.later(candidate, now_s)

    def _match(self, sidecars: list[str], present: set[str], now_s: float) -> list[str]:
        """Says for each sidecar that its picture is finished; returns those that have had none for long."""
        if not sidecars:
            self._orphans.clear()
            return []
        stems: dict[str, list[str]] = {}
        for relative in present:
            stems.setdefault(stem_of(relative), []).append(relative)
        orphans: dict[str, float] = {}
        for sidecar in sidecars:
            base = stem_of(sidecar)
            pictures = {*([base] if base in present else []), *stems.get(base, [])}
            for picture in pictures:
                self._said(picture, now_s, known_only=True)
            if not pictures:
                orphans[sidecar] = self._orphans.get(sidecar, now_s)
        self._orphans = orphans
        return [sidecar for sidecar, since_s in orphans.items() if now_s - since_s >= self._unchanged_s]
