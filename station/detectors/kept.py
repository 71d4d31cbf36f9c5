"""Puts files in the place of others: whole or not at all, and the service's own also when root asked for it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from station.disk import sync_directory

DRAFT = ".part-"  # how the names of drafts begin; two processes never share one


def replace_file(file: Path, content: bytes, *, synced: bool = False) -> None:
    """
    Puts *content* in *file*'s place at once; its folder must be there. Raises OSError.

    Unless *synced*, it may be empty or gone after a power cut, which its readers have to bear.
    """
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=DRAFT, delete=False) as draft:
        path = Path(draft.name)
        try:
            draft.write(content)
            draft.flush()
            if synced:
                os.fsync(draft.fileno())
            path.chmod(0o644)
            adopt(path)
            path.replace(file)
            if synced:
                sync_directory(file.parent)
        except BaseException:
            path.unlink(missing_ok=True)  # it may have its new name already
            raise


def adopt(path: Path) -> None:
    """What root puts into a service's data folder has to be the service's, which reads it and writes beside it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
