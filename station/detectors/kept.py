"""Writes what is kept to save time: whole or not at all, and the service's own also when root asked for it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def replace_file(file: Path, content: bytes) -> None:
    """
    Puts *content* in *file*'s place at once; its folder must be there. Raises OSError.

    Not synced: after a power cut it may be empty or gone, which its readers have to bear.
    """
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".part-", delete=False) as draft:
        path = Path(draft.name)
        try:
            draft.write(content)
            draft.flush()
            path.chmod(0o644)
            adopt(path)
            path.replace(file)
        except BaseException:
            path.unlink()
            raise


def adopt(path: Path) -> None:
    """What root puts into a service's data folder has to be the service's, which reads it and writes beside it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)
