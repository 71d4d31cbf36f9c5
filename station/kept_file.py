"""A small JSON document on disk that is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import json
import os
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


def write_kept(path: Path, document: dict[str, Any]) -> None:
    """Puts *document* in the place of what is at *path*; it is on the disk when this returns. Raises OSError."""
    draft = path.with_name(f".{path.name}.part")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(document, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)
