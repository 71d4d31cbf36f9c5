"""What the names in a watched folder mean, and which names the station makes itself. Pure."""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from stat import S_ISLNK, S_ISREG

PROCESSING, DONE, FAILED = "processing", "done", "failed"
OWN_FOLDERS = frozenset({PROCESSING, DONE, FAILED})  # in the inbox itself; never looked into for boards

# What programs call a file that they have not finished, or that is not for others.
_UNFINISHED = (".part", ".partial", ".filepart", ".tmp", ".temp", ".crdownload", ".download", ".lock", ".swp", "~")
_CLUTTER = frozenset({"thumbs.db", "desktop.ini"})  # what a file manager leaves on a share
_SIDECARS = (".ok", ".done")
_PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")

NAME_MAX_BYTES = 255  # of one name, on every file system that Linux stations meet
_ROOM_BYTES = 37  # the event id and the tilde before the name; more than any ending that is put behind one

_CLAIMED = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})~(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Stamp:
    """Which version of a file this is: the same stamp, the same bytes."""

    inode: int
    size_bytes: int
    mtime_ns: int


def stamp_of(status: os.stat_result) -> Stamp:
    return Stamp(status.st_ino, status.st_size, status.st_mtime_ns)


def unfit(status: os.stat_result) -> str | None:
    """Why this is nothing that could ever hold a picture, or None for a regular file."""
    if S_ISREG(status.st_mode):
        return None
    if S_ISLNK(status.st_mode):
        return "a symbolic link, which is never followed: put the picture itself into the folder"
    return "no regular file"


def is_ignored(name: str) -> bool:
    """Not a board, or not yet: it is left where it is and nothing is said of it."""
    lower = name.lower()
    return lower.startswith(".") or lower.endswith(_UNFINISHED) or lower in _CLUTTER


def is_sidecar(name: str) -> bool:
    """An empty companion by which a writer says that the picture beside it is finished."""
    return name.lower().endswith(_SIDECARS)


def sidecars_of(name: str) -> tuple[str, ...]:
    """What the sidecars of a picture may be called."""
    stem = _split(name)[0]
    return tuple(base + ending for base in dict.fromkeys((name, stem)) for ending in _SIDECARS)


def pictures_of(sidecar: str) -> tuple[str, ...]:
    """What the picture of a sidecar may be called, most likely first; a scan knows better."""
    base = _split(sidecar)[0]
    return (base, *(base + ending for ending in _PICTURES))


def claimed(event_id: str, name: str) -> str:
    """The name of a claimed file: ``<event_id>~NAME``, for a shortened NAME."""
    return f"{event_id}~{name}"


def parsed(claimed_name: str) -> tuple[str, str] | None:
    """(event id, NAME) of a claimed file's name, or None if the station did not make it."""
    found = _CLAIMED.fullmatch(claimed_name)
    return (found[1], found[2]) if found else None


def new_id() -> str:
    return str(uuid.uuid4())


def shortened(name: str) -> str:
    """The name, cut in its middle if it would leave no room for an event id before it or an ending behind it."""
    over = len(os.fsencode(name)) + _ROOM_BYTES - NAME_MAX_BYTES
    if over <= 0:
        return name
    stem, ending = _split(name)
    if len(ending) > 20:  # no suffix, but a dot somewhere in a long name
        stem, ending = name, ""
    raw = os.fsencode(stem)
    keep = len(raw) - over - 2
    # Cutting bytes may leave half a character: surrogateescape carries that like any other odd byte.
    return os.fsdecode(raw[: keep - keep // 2] + b"__" + raw[len(raw) - keep // 2 :]) + ending


def numbered(name: str, number: int) -> str:
    """The name itself for 1, then ``NAME~2.jpg``, ``NAME~3.jpg``: for a place where nothing may be overwritten."""
    if number == 1:
        return name
    stem, ending = _split(name)
    return f"{stem}~{number}{ending}"


def printable(name: str) -> str:
    """The name as it can be shown and sent: what is not UTF-8 in it is replaced."""
    return os.fsencode(name).decode(errors="replace")


def stem_of(relative: str) -> str:
    """The name, with its folders, without its suffix."""
    folder, slash, name = relative.rpartition("/")
    return folder + slash + _split(name)[0]


def _split(name: str) -> tuple[str, str]:
    """Stem and suffix, with its dot: not by way of paths, whose separators mean nothing here."""
    stem, dot, ending = name.rpartition(".")
    return (stem, dot + ending) if stem else (name, "")
