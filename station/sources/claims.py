"""Claims on the files of the inbox, kept as names on the disk, so that a crash neither loses nor repeats a board."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import structlog

from station.disk import make_directory, sync_directory
from station.durable import rename_exclusive, replace_file, write_synced
from station.errors import SourceError
from station.sources.names import (
    DONE,
    FAILED,
    PROCESSING,
    Stamp,
    claimed,
    new_id,
    numbered,
    parsed,
    printable,
    shortened,
    sidecars_of,
    stamp_of,
)

log = structlog.get_logger(__name__)

_CLEAN = ".clean"
_NUMBERS = 1000  # names of which it is remembered how often they were used: a bound on memory, and nothing else
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True, slots=True)
class Claim:
    """
    A file that is this station's to inspect.

    *relative* is its name below the inbox (``folder/NAME``, a very long one shortened), *path* is where it lies now,
    and *stamp* the version that lay there when it was claimed (or found, after a restart).
    """

    event_id: str
    relative: str
    claimed_at: datetime
    path: Path
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Leftover:
    """A claim that an earlier run did not finish, and how many crashes came while this file was in flight."""

    claim: Claim
    crashes: int


class Claims:
    """
    The claims of a station that moves its files: ``processing/<folder>/<event_id>~NAME`` while a board is in flight,
    ``done/DATE/<folder>/NAME`` or ``failed/<folder>/NAME`` with its reason afterwards.

    A claim is on the disk before it is returned. A move to ``done/`` is not synced: should a power cut undo it, the
    ledger knows the board, and the next start moves the file again. The bytes of the pictures are not synced either:
    what their writer did not sync can be cut short by a power cut, and is then UNKNOWN, not lost.
    """

    def __init__(self, inbox: Path, *, now: Callable[[], datetime]) -> None:
        self._inbox = inbox
        self._processing = inbox / PROCESSING
        self._now = now
        self._attempt: tuple[Claim, int] | None = None
        self._numbers: dict[Path, int] = {}

    def open(self) -> list[Leftover]:
        """
        What earlier runs left in ``processing/``, oldest claim first. From now on a crash is an unclean exit.

        Raises SourceError where the inbox does not allow to move files.
        """
        if not os.access(self._inbox, os.W_OK | os.X_OK):  # else each file would say so anew, with good news in between
            raise self._trouble(PermissionError(errno.EACCES, os.strerror(errno.EACCES)), self._inbox)
        try:
            make_directory(self._processing)
            clean = (self._processing / _CLEAN).exists()
            (self._processing / _CLEAN).unlink(missing_ok=True)
            claims = sorted(self._unfinished(), key=lambda claim: (claim.claimed_at, claim.stamp.mtime_ns))
            counters = {path.name: path for path in self._processing.glob(".*.attempts")}
            found = [Leftover(claim, _counted(counters, claim, otherwise=0 if clean else 1)) for claim in claims]
            for orphan in counters.keys() - {_counter(claim) for claim in claims}:
                counters[orphan].unlink()
        except OSError as error:
            raise self._trouble(error, self._processing) from error
        return found

    def take(self, relative: str, _stamp: Stamp) -> Claim | None:
        """
        Claims a file of the inbox under a new event id; None if it is gone, to another station perhaps.

        Raises SourceError where the inbox does not allow to move files.
        """
        source = self._inbox / relative
        event_id, name = new_id(), shortened(source.name)
        relative = str(Path(relative).with_name(name))
        target = self._processing / Path(relative).with_name(claimed(event_id, name))
        try:
            try:
                source.rename(target)
            except FileNotFoundError:
                if target.parent.is_dir():
                    return None
                make_directory(target.parent)
                source.rename(target)
            sync_directory(target.parent)
            sync_directory(source.parent)
            stamp = stamp_of(target.lstat())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._trouble(error, source) from error
        return Claim(event_id, relative, self._now(), target, stamp)

    def attempt(self, claim: Claim, crashes: int) -> None:
        """
        Retries a file that was in flight in *crashes* crashes. Should this try crash too, the next start counts one
        more.
        """
        counter = self._processing / _counter(claim)
        try:
            replace_file(counter, b"%d" % (crashes + 1))
        except OSError as error:
            raise self._trouble(error, counter) from error
        self._attempt = (claim, crashes)

    def finish(self, claim: Claim, stamp: Stamp | None, problem: str | None) -> Claim | None:
        """
        The board is recorded: moves its file to where it stays, with the reason beside it if there is a *problem*.

        If the file is no more what was inspected (*stamp*), it is a new board: the new claim on it is returned.
        Raises SourceError where the file cannot be moved.
        """
        if self._attempt is not None and self._attempt[0].event_id == claim.event_id:
            self._attempt = None
        try:
            status = claim.path.lstat()
            if stamp is not None and stamp_of(status) != stamp:
                return self._again(claim)
            if problem is None:
                self._shelve(claim.path, self._day(claim.claimed_at) / claim.relative)
            else:
                self._set_aside(claim, problem)
            (self._processing / _counter(claim)).unlink(missing_ok=True)
            folder, slash, picture = claim.relative.rpartition("/")
            for name in sidecars_of(picture):
                self._follow(claim, folder + slash + name, failed=problem is not None)
        except FileNotFoundError:
            log.warning("claimed file vanished", event_id=claim.event_id, file=printable(claim.relative))
        except OSError as error:
            raise self._trouble(error, claim.path) from error
        return None

    def knows(self, _relative: str, _stamp: Stamp) -> bool:
        """What was claimed does not lie in the inbox any more."""
        return False

    def on_record(self, _relative: str, _stamp: Stamp) -> bool:
        return False

    def forget_all_but(self, _present: set[str]) -> None:
        """Nothing is remembered."""

    def tidy(self, relative: str) -> None:
        """A sidecar whose picture has long gone follows it."""
        path = self._inbox / relative
        try:
            self._shelve(path, (self._day(self._now()) / relative).with_name(shortened(path.name)))
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._trouble(error, path) from error

    def close(self) -> None:
        """This run ends in good order: what it leaves in ``processing/`` has crashed nothing."""
        try:
            if self._attempt is not None:
                claim, crashes = self._attempt
                replace_file(self._processing / _counter(claim), b"%d" % crashes)
            (self._processing / _CLEAN).touch()
        except OSError as error:  # the next start then takes the files in flight one by one: slower, and harmless
            log.warning("clean end not noted", folder=str(self._processing), error=str(error))

    def _unfinished(self) -> Iterator[Claim]:
        for path in self._processing.rglob("*"):
            own = parsed(path.name)
            status = path.lstat()
            if own is not None:
                event_id, name = own
                relative = str(path.relative_to(self._processing).with_name(name))
                # A rename sets the change time: the moment of the claim, as near as a restart can know it.
                claimed_at = datetime.fromtimestamp(status.st_ctime, timezone.utc)
                yield Claim(event_id, relative, claimed_at, path, stamp_of(status))
            elif not path.is_dir() and not path.name.startswith("."):
                log.warning("stranger in processing", file=printable(path.name))

    def _again(self, claim: Claim) -> Claim | None:
        event_id = new_id()
        target = claim.path.with_name(claimed(event_id, _name(claim)))
        claim.path.rename(target)
        sync_directory(target.parent)
        (self._processing / _counter(claim)).unlink(missing_ok=True)
        log.info("file changed while it was inspected", old=claim.event_id, new=event_id)
        return Claim(event_id, claim.relative, self._now(), target, stamp_of(target.lstat()))

    def _follow(self, claim: Claim, sidecar: str, *, failed: bool) -> None:
        if os.path.lexists(f"{self._inbox}/{sidecar}"):  # hardly ever, and asked for each board: no Path is made for it
            folder = self._inbox / FAILED if failed else self._day(claim.claimed_at)
            with contextlib.suppress(FileNotFoundError):
                self._shelve(self._inbox / sidecar, folder / sidecar)

    def _set_aside(self, claim: Claim, problem: str) -> None:
        """The reason comes first: what lies in ``failed/`` never lies there without one."""
        wanted = self._inbox / FAILED / claim.relative
        text = f"{problem}\n\nfile: {printable(claim.relative)}\nevent: {claim.event_id}\n"
        make_directory(wanted.parent)
        draft = wanted.with_name(f".{claim.event_id}.reason.tmp")
        for number in itertools.count(1):
            target = wanted.with_name(numbered(wanted.name, number))
            reason = target.with_name(f"{target.name}.reason.txt")
            if os.path.lexists(target):
                continue
            try:
                write_synced(draft, text)
                rename_exclusive(draft, reason)
            except FileExistsError:
                draft.unlink()
                # A crash may have come after our reason and before the file.
                if reason.read_text(encoding="utf-8", errors="replace") != text:
                    continue
            sync_directory(wanted.parent)
            rename_exclusive(claim.path, target)
            return

    def _shelve(self, source: Path, wanted: Path) -> None:
        # A camera that calls every picture the same would have us try all numbers of the day for each.
        first = self._numbers.get(wanted, 1)
        for number in itertools.count(first):
            if _moved(source, wanted.with_name(numbered(wanted.name, number))):
                break
        if number > 1:
            if len(self._numbers) > _NUMBERS:
                self._numbers.clear()
            self._numbers[wanted] = number + 1

    def _day(self, moment: datetime) -> Path:
        return self._inbox / DONE / f"{moment.astimezone(timezone.utc):%Y-%m-%d}"

    def _trouble(self, error: OSError, path: Path) -> SourceError:
        text = f"{printable(str(path))} cannot be moved or written ({error.strerror})"
        if error.errno in _FORBIDDEN:
            text += (
                f": allow the station's user to write in {printable(str(self._inbox))}, "
                'or set after = "leave" in [source] to only read there'
            )
        return SourceError(text)


def _moved(source: Path, target: Path) -> bool:
    """False: the name is taken."""
    try:
        rename_exclusive(source, target)
    except FileExistsError:
        return False
    except FileNotFoundError:
        if target.parent.is_dir():
            raise
        make_directory(target.parent)
        return _moved(source, target)
    return True


def _name(claim: Claim) -> str:
    return claim.relative.rpartition("/")[2]


def _counter(claim: Claim) -> str:
    return f".{claim.event_id}.attempts"


def _counted(counters: dict[str, Path], claim: Claim, *, otherwise: int) -> int:
    path = counters.get(_counter(claim))
    if path is None:
        return otherwise
    text = path.read_text(encoding="ascii", errors="replace")
    return int(text) if text.isdecimal() else 1
