"""The folders of a station: made where they are missing, kept apart, and each held by one station."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

import structlog

from station.disk import make_directory
from station.errors import ConfigError
from station.locks import hold, is_held

log = structlog.get_logger(__name__)

INBOX = "[source] path"
LOCK = ".lock"


def make_folder(path: Path, key: str) -> Path:
    """*path*, there and writable. Raises ConfigError naming *key*."""
    there = path.is_dir()
    try:
        make_directory(path)
    except OSError as error:
        raise ConfigError(
            f"{key} = {path}: cannot be made ({error.strerror}): choose a folder that the station may write"
        ) from None
    if key == INBOX and not there:  # others bring boards there: nothing else would tell that its path is misspelt
        log.info("inbox made", path=str(path))
    return path


def check_apart(data_dir: Path, inbox: Path) -> None:
    """Raises ConfigError when one lies in the other: the station would inspect what it writes itself, for ever."""
    ours, watched = data_dir.resolve(), inbox.resolve()
    if ours == watched or watched in ours.parents:
        raise ConfigError(f"[station] data_dir = {data_dir} lies in [source] path = {inbox}: choose a folder beside it")
    if ours in watched.parents:
        raise ConfigError(f"[source] path = {inbox} lies in [station] data_dir = {data_dir}: choose a folder beside it")


def lock_inbox(folder: Path) -> int | None:
    """
    Holds an inbox for this process until the descriptor is closed; nothing is written there.

    None: it is away (the source says so, and waits for it), or its file system has no locks. Raises ConfigError when
    another station on this machine has it.
    """
    try:
        return hold(folder, os.O_RDONLY | os.O_DIRECTORY)
    except BlockingIOError:
        raise ConfigError(
            f"[source] path = {folder}: another station that runs takes boards from it: give each its own inbox"
        ) from None
    except OSError:
        return None


def lock_folder(folder: Path) -> IO[bytes]:
    """Holds *folder* for this process until the file is closed. Raises ConfigError when another station has it."""
    try:
        return os.fdopen(hold(folder / LOCK, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
    except BlockingIOError:
        raise ConfigError(
            f"[station] data_dir = {folder}: another station that runs uses it: give each its own, or stop that one"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"[station] data_dir = {folder}: {LOCK} cannot be opened and locked: {error.strerror}"
        ) from None


def is_locked(folder: Path) -> bool:
    """Whether a station that runs has *folder*, as far as this user can see. Nothing is made there."""
    return is_held(folder / LOCK) is True
