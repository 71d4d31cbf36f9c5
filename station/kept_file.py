"""A small JSON document on disk that is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from station.disk import sync_directory


def read_kept(path: Path) -> dict[str, Any]:
    """The document at *path*; empty if there is none, or it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def write_kept(path: Path, document: dict[str, Any], *, private: bool = False) -> None:
    """
    Puts *document* in the place of what is at *path*; it is on the disk when this returns. Raises OSError.

    *private*: for the owner's eyes alone.
    """
    draft = path.with_name(f".{path.name}.part")
    draft.unlink(missing_ok=True)  # what a crash left may have another mode
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600 if private else 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)


def keep_secret(path: Path, text: str) -> None:
    """
    Makes *path* with *text* for the owner's eyes alone, unless it is there already: the first one wins. Raises OSError.

    It is whole when it is there: an empty secret, as a power cut leaves it, would stop every start from then on.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    draft.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if os.geteuid() == 0:  # what root makes (sudo station token create) has to be readable for the service
            owner = path.parent.stat()
            os.chown(draft, owner.st_uid, owner.st_gid)
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_directory(path.parent)
