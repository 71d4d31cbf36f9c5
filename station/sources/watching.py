"""Hints that something was finished in the inbox, from inotify. They may fail to come: only scans are believed."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import structlog
from watchdog.events import DirCreatedEvent, DirMovedEvent, FileClosedEvent, FileMovedEvent, FileSystemEvent
from watchdog.events import FileSystemEventHandler as EventHandler
from watchdog.observers.inotify import InotifyFullEmitter, InotifyObserver
from watchdog.observers.inotify_c import InotifyConstants

from station.sources.inbox import RESCAN
from station.sources.names import printable

log = structlog.get_logger(__name__)

# statfs(2) f_type of file systems on which others write unseen by this kernel's inotify.
_REMOTE = {
    0x6969: "nfs",
    0x517B: "smb",
    0xFE534D42: "smb2",
    0xFF534D42: "cifs",
    0x65735546: "fuse",
    0x01021997: "9p",
    0x00C36400: "ceph",
    0x786F4256: "vboxsf",
    0x5346414F: "afs",
}


def remote_kind(path: Path) -> str | None:
    """The name of the file system if others may write to it without this machine noticing; None for a local one."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs is 120 bytes at most; f_type is its first word
    if ctypes.CDLL(None, use_errno=True).statfs(os.fsencode(path), buffer) != 0:
        return None
    return _REMOTE.get(ctypes.c_long.from_buffer(buffer).value & 0xFFFFFFFF)


class Watch:
    """
    Calls *hint* with the name (below *path*) of each file that was closed after writing or renamed into place, and
    with RESCAN when folders appeared; from a thread of its own.
    """

    def __init__(self, path: Path, *, subfolders: bool, hint: Callable[[str], None]) -> None:
        self._path = path
        self._subfolders = subfolders
        self._hint = hint
        self._observer: InotifyObserver | None = None
        self._watched: tuple[int, int] | None = None
        self._failed = False

    def ensure(self) -> bool:
        """
        Whether hints come. Starts the watch, or starts it anew when it died or the folder is another one by now.

        A scan must follow: what came before the watch was there has given no hint.
        """
        if self._observer is not None and not self._is_well():
            log.warning("folder watch lost", folder=printable(str(self._path)))
            self.stop()
        if self._observer is None:
            try:
                self._start()
            except OSError as error:
                # Most often ENOSPC or EMFILE: fs.inotify.max_user_watches or max_user_instances are used up.
                self._say_once(error)
                self.stop()
            else:
                self._failed = False
        return self._observer is not None

    def stop(self) -> None:
        """No hint comes after this, and nothing is left open."""
        if self._observer is None:
            return
        self._observer.stop()
        if self._observer.ident is not None:
            self._observer.join()
        self._observer = None

    def _start(self) -> None:
        self._watched = _identity(self._path)
        self._observer = InotifyObserver()
        self._observer._emitter_class = _Emitter  # noqa: SLF001  # no other way to it in any version of watchdog
        self._observer.schedule(_Listener(self._path, self._hint), str(self._path), recursive=self._subfolders)
        self._observer.start()

    def _is_well(self) -> bool:
        observer = self._observer
        try:
            same = _identity(self._path) == self._watched
        except OSError:
            return False
        return (
            same and observer is not None and observer.is_alive() and all(one.is_alive() for one in observer.emitters)
        )

    def _say_once(self, error: OSError) -> None:
        if not self._failed:
            log.warning("folder watch failed, scanning only", folder=printable(str(self._path)), error=str(error))
        self._failed = True


class _Emitter(InotifyFullEmitter):
    """
    Asks the kernel for the few events that matter.

    Above all not for IN_MOVED_FROM, as watchdog would for renames: our own claims are such moves, and watchdog would
    hold back every later event for half a second, waiting for the other half of the move.
    """

    def get_event_mask_from_filter(self):  # type: ignore[no-untyped-def]  # its type has changed between versions
        wanted = InotifyConstants.IN_CLOSE_WRITE | InotifyConstants.IN_MOVED_TO | InotifyConstants.IN_DELETE_SELF
        return wanted | InotifyConstants.IN_CREATE if self.watch.is_recursive else wanted


class _Listener(EventHandler):
    def __init__(self, path: Path, hint: Callable[[str], None]) -> None:
        self._prefix = f"{path}/"
        self._hint = hint

    def dispatch(self, event: FileSystemEvent) -> None:
        if isinstance(event, FileClosedEvent):
            self._hint(self._relative(event.src_path))
        elif isinstance(event, FileMovedEvent):
            self._hint(self._relative(event.dest_path))
        elif isinstance(event, DirCreatedEvent | DirMovedEvent):
            self._hint(RESCAN)

    def _relative(self, path: bytes | str) -> str:
        return os.fsdecode(path).removeprefix(self._prefix)


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
